"""The chart as users install it: real helm, a real kubelet, the real image, the real service accounts."""

import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from string import ascii_uppercase
from typing import Any

import yaml

from e2e.real.cluster import ON_REAL_NODE, REAL_NODE, RealCluster, call
from e2e.real.release import READY_TIMEOUT, Release, make_namespace
from e2e.real.work import open_replay
from e2e.stage import phases, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.trace_replay import FINAL_PHASES
from realnode.model_server.server import MODEL, PORT

TASKS = 50
LETTERS = ascii_uppercase[:20]
LOST = {"operator": "lost the lease", "scheduler": "Leaderelection lost"}
EXAMPLE = Path(__file__).parents[3] / "examples" / "server-on-node.yaml"


# What Kubernetes lets every service account do: ask who it is, and read which authorities to trust.
EVERYBODY = {
    ("clustertrustbundles.certificates.k8s.io", "get list watch"),
    ("selfsubjectreviews.authentication.k8s.io", "create"),
    ("selfsubjectaccessreviews.authorization.k8s.io", "create"),
    ("selfsubjectrulesreviews.authorization.k8s.io", "create"),
}
RIGHTS = {
    ("nodes", "list watch"),
    ("namespaces", "list watch"),
    ("resourcequotas", "list watch"),
    ("pods", "list watch create delete"),
    ("pods/binding", "create"),
    ("pods/status", "patch"),
    ("events.events.k8s.io", "create"),
    ("llminferencetasks.perllm.io", "list watch delete"),
    ("llminferencetasks.perllm.io/status", "patch"),
    ("llmnodeprofiles.perllm.io", "list watch create"),
    ("llmnodeprofiles.perllm.io/status", "patch"),
}


async def test_both_containers_are_ready_where_restricted_pod_security_is_enforced(release: Release) -> None:
    (pod,) = await release.pods()
    containers = pod["status"]["containerStatuses"]
    assert {one["name"]: one["ready"] for one in containers} == {"operator": True, "scheduler": True}
    for one in containers:
        # An API server that does not answer for seconds, as on a busy machine, is the only reason to start again.
        assert one["restartCount"] == 0 or LOST[one["name"]] in await release.read_log(one["name"]), one
    assert pod["spec"]["nodeName"] == REAL_NODE.name


async def test_the_image_holds_the_operator_and_nothing_of_the_lab(release: Release, cluster: RealCluster) -> None:
    packages = ("perllm", "perllm_lab", "rich", "scipy", "trustme", "pip", "hatchling")
    question = f"from importlib.util import find_spec; print(*filter(find_spec, {packages}))"
    pod = ("exec", f"deploy/{release.name}", "--namespace", release.namespace, "--container", "operator", "--")
    printed = await cluster.kubectl(*pod, "python3", "-c", question)
    assert printed.split() == ["perllm"]


async def test_fifty_tasks_finish_and_their_decisions_are_in_the_log(release: Release, cluster: RealCluster) -> None:
    await make_namespace(cluster, "fifty")
    replay = open_replay(cluster, "fifty", TASKS)
    await replay.run(timeout_s=60.0)
    assert phases(replay.objects) == Counter(Succeeded=TASKS)
    assert {f"fifty/{name}" for name in replay.objects} <= await release.decided()


async def test_the_account_has_these_rights_and_no_others(release: Release, cluster: RealCluster) -> None:
    account = f"system:serviceaccount:{release.namespace}:{release.name}"
    printed = await cluster.kubectl("auth", "can-i", "--list", f"--as={account}", "--namespace=default", "--no-headers")
    assert set(_read_rights(printed)) - EVERYBODY == RIGHTS


async def test_the_doctor_in_the_pod_finds_nothing_that_fails(release: Release, cluster: RealCluster) -> None:
    pod = ("exec", f"deploy/{release.name}", "--namespace", release.namespace, "--container", "operator", "--")
    printed = await cluster.kubectl(*pod, "perllm", "doctor", "--config", "/etc/perllm/perllm.yaml")
    print(f"\n{printed}")
    assert [line for line in printed.splitlines() if line.startswith("FAIL")] == []


async def test_helm_test_runs_the_doctor_with_the_rights_of_the_operator(
    release: Release, cluster: RealCluster
) -> None:
    job = (f"job/{release.name}-test", "--namespace", release.namespace)
    await release.helm.run("test", release.name, "--namespace", release.namespace, "--timeout", READY_TIMEOUT)
    printed = await cluster.kubectl("logs", *job)
    await cluster.kubectl("delete", *job)
    assert "0 FAIL" in printed


async def test_a_real_model_answers_on_the_node_and_the_status_reports_it(
    release: Release, cluster: RealCluster
) -> None:
    await make_namespace(cluster, "llm", restricted=True)
    await cluster.client.post(names.tasks_path("llm"), _read_example())
    task = await _wait_final(cluster, "llm", "ask-the-node")
    status = task["status"]
    print(f"\n{status['observed']}\n{status['result']}")
    assert (status["phase"], status["nodeName"]) == ("Succeeded", REAL_NODE.name), status
    observed = status["observed"]
    # This server counts no tokens while it streams; each piece of its stream is one.
    assert (observed["tokens"] > 0, observed["tokenSource"]) == (True, "chunks")
    assert 0 < observed["timeToFirstToken"] < observed["inference"] < observed["latency"]
    assert len(status["result"]["text"].split()) > 3


async def test_a_missing_image_is_reported_in_the_words_of_kubelet(release: Release, cluster: RealCluster) -> None:
    await make_namespace(cluster, "stuck", restricted=True)
    task = _read_example()
    (container,) = task["spec"]["template"]["spec"]["containers"]
    container.update(image="registry.example.com/nowhere:1", imagePullPolicy="Never")
    task["spec"]["deadline"] = "20s"
    await cluster.client.post(names.tasks_path("stuck"), task)
    begun_s = time.monotonic()
    status: Object = {}

    async def is_reported() -> bool:
        nonlocal status
        status = (await cluster.client.get(names.task_path("stuck", "ask-the-node"))).get("status") or {}
        return "ErrImageNeverPull" in (status.get("message") or "")

    await wait_until(is_reported, timeout_s=45, describe=lambda: str(status))
    print(f"\nfrom creation to the reason: {time.monotonic() - begun_s:.1f} s: {status['message']}")
    task = await _wait_final(cluster, "stuck", "ask-the-node")
    assert (task["status"]["phase"], "ErrImageNeverPull" in task["status"]["message"]) == ("Failed", True)


async def test_twenty_prompts_are_answered_by_the_agent_of_the_node(
    release: Release, cluster: RealCluster, tmp_path: Path
) -> None:
    await release.install(agent=await _agent_values(cluster))
    await make_namespace(cluster, "prompts", restricted=True)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"Name an animal that begins with the letter {letter}.\n" for letter in LETTERS))
    # One at a time, so that what is not the model's work is overhead and not a queue.
    options = ("--file", str(prompts), "--model", MODEL, "--max-tokens", "16", "--deadline", "60s", "--window", "1")
    printed = await _submit(cluster, "--namespace", "prompts", *options)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [bool(line["text"].strip()) for line in lines] == [True] * len(LETTERS), lines
    tasks = (await cluster.client.get(names.tasks_path("prompts")))["items"]
    assert {(one["status"]["runsAs"], one["status"]["nodeName"]) for one in tasks} == {("request", REAL_NODE.name)}
    observed = [task["status"]["observed"] for task in tasks]
    overhead_s = sorted(one["latency"] - one.get("transfer", 0.0) - one["inference"] for one in observed)
    tokens = sum(one["tokens"] for one in observed)
    print(f"\n{tokens} tokens, overhead median {median(overhead_s):.3f} s, at most {overhead_s[-1]:.3f} s")


async def _agent_values(cluster: RealCluster) -> dict[str, Any]:
    """Return the values of an agent on the real node only, for the server at the node's address."""
    node = await cluster.client.get(f"/api/v1/nodes/{REAL_NODE.name}")
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    return {"enabled": True, "servers": [{"url": f"http://{address}:{PORT}/v1", "slots": 1}], **ON_REAL_NODE}


async def _submit(cluster: RealCluster, *options: str) -> str:
    """Return what `kubectl perllm submit` prints."""
    kubectl, *_ = cluster.control_plane.kubectl_argv
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(cluster.control_plane.admin_kubeconfig),
    }
    return await call(kubectl, "perllm", "submit", *options, environment=environment)


def _read_rights(printed: str) -> list[tuple[str, str]]:
    """Return resources and verbs; drop paths that are not resources, such as /healthz."""
    found = (re.match(r"(\S+)\s+\[\]\s+\[(.*?)\]\s+\[(.*?)\]$", line) for line in printed.splitlines())
    return [(match[1], match[3]) if not match[2] else (f"{match[1]} {match[2]}", match[3]) for match in found if match]


def _read_example() -> Object:
    """Return the task of the example, with only model and node changed."""
    manifests: list[Object] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    (task,) = (one for one in manifests if one["kind"] == names.TASK_KIND)
    task["spec"]["model"] = MODEL
    pod = task["spec"]["template"]["spec"]
    pod.update(ON_REAL_NODE)
    (container,) = pod["containers"]
    container["args"] = [f"--model={MODEL}" if word.startswith("--model=") else word for word in container["args"]]
    return task


async def _wait_final(cluster: RealCluster, namespace: str, name: str) -> Object:
    task: Object = {}

    async def is_final() -> bool:
        nonlocal task
        task = await cluster.client.get(names.task_path(namespace, name))
        return (task.get("status") or {}).get("phase") in FINAL_PHASES

    await wait_until(is_final, timeout_s=60, describe=lambda: str(task.get("status")))
    return task
