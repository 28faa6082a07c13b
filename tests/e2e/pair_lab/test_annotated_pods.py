"""Pods that belong to no task, placed by their annotations: of every kind of owner, and bare ones."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from e2e.annotated import build_template, wait_event
from e2e.devices import CLAIM, build_claiming_spec, create_claim_template, has_devices
from e2e.pair import EDGE_SLOTS
from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.kueue.workload import QUEUE_LABEL
from perllm.placement.decision import read_record

SOON_S = 20.0
"""kube-scheduler pauses for at most 2 s after a failure; what nothing makes it retry, it leaves for minutes."""


async def create(stage: Stage, api: str, kind: str, name: str, spec: Object, **labels: str) -> None:
    plural = f"{kind.lower()}s"
    manifest = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}
    await stage.lab.client.post(f"/apis/{api}/namespaces/{stage.namespace}/{plural}", manifest)


async def create_pod(stage: Stage, name: str, pod: Object) -> None:
    metadata = {**pod["metadata"], "name": name}
    await stage.lab.client.post(stage.pods_path, {"metadata": metadata, "spec": pod["spec"]})


async def create_claiming_pod(stage: Stage, name: str) -> None:
    """Create a pod that gets a device by a claim, as only the node in the cloud has it."""
    await create_claim_template(stage, CLAIM["resourceClaimTemplateName"], 1)
    spec = {**build_claiming_spec(CLAIM), "schedulerName": names.SCHEDULER_NAME}
    await create_pod(stage, name, {**build_template(stage), "spec": spec})


async def create_task(stage: Stage, name: str, *, output_tokens: int) -> None:
    """Create a served task for the edge that writes so many tokens."""
    mark = f"Hello [[lab task={name} prompt=20 output={output_tokens} bytes=100]]"
    spec: Object = {"model": stage.lab.scenario.model, "deadline": "1h", "prompt": mark, "tiers": ["edge"]}
    manifest = {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "metadata": {"name": name}, "spec": spec}
    await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)


async def wait_node(stage: Stage, name: str, *, timeout_s: float) -> None:
    async def has_node() -> bool:
        return bool((await stage.pods())[name]["spec"].get("nodeName"))

    await wait_until(has_node, timeout_s=timeout_s, describe=lambda: f"{name} has no node")


def only_pod(stage: Stage, prefix: str) -> list[Object]:
    """Return every state of the only pod whose name begins so."""
    (states,) = (states for name, states in stage.seen.items() if name.startswith(prefix))
    return states


async def test_pods_of_every_kind_that_end_are_placed_measured_and_learned_from(stage: Stage, queue: str) -> None:
    before = await stage.learned()
    job = build_template(stage, deadline="30s", prompt_tokens="200", output_tokens=60, input_bytes="1000")
    await create(stage, "batch/v1", "Job", "job", {"template": job})
    await create(stage, "batch/v1", "Job", "queued", {"template": build_template(stage)}, **{QUEUE_LABEL: queue})
    # Suspended, so that its schedule starts nothing else meanwhile.
    cron = {
        "schedule": "0 3 * * *",
        "suspend": True,
        "jobTemplate": {"spec": {"template": build_template(stage, policy="OnFailure")}},
    }
    await create(stage, "batch/v1", "CronJob", "nightly", cron)
    await stage.kubectl("create", "job", "nightly-now", "--from=cronjob/nightly", "--namespace", stage.namespace)
    await create_pod(stage, "bare", build_template(stage, tiers="cloud"))
    prefixes = ["job-", "queued-", "nightly-", "bare"]
    if has_devices():
        await create_claiming_pod(stage, "claiming")
        prefixes.append("claiming")
    for prefix in prefixes:
        assert await wait_event(stage, prefix, "Placed")
        note = await wait_event(stage, prefix, "Completed")
        assert note.startswith("took ")
        assert " J (" in note
    states = only_pod(stage, "bare")

    async def is_annotated() -> bool:
        return names.ENERGY_ANNOTATION in states[-1]["metadata"]["annotations"]

    await wait_until(is_annotated, timeout_s=20)
    assert all("finalizers" not in state["metadata"] for state in states)
    annotations: dict[str, Any] = states[-1]["metadata"]["annotations"]
    assert read_record(annotations[names.DECISION_ANNOTATION]).tier == "cloud"
    assert float(annotations[names.ENERGY_ANNOTATION]) > 0.0
    await stage.wait_learned(before + len(prefixes), timeout_s=30.0)
    ended = [line for line in stage.read_log() if line.get("event") == "ended" and "pod" in line]
    decided = {line["pod"].partition("/")[2] for line in ended}
    assert {name for name in decided if name in stage.seen} == stage.seen.keys()


async def test_the_servers_of_a_stateful_set_are_present_while_they_exist(stage: Stage) -> None:
    flying = await stage.metric("perllm_tasks_in_flight")
    servers = build_template(stage, output_tokens=100_000, policy="Always")
    spec = {
        "replicas": 2,
        "serviceName": "server",
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {"app": "llm"}},
        "template": servers,
    }
    await create(stage, "apps/v1", "StatefulSet", "server", spec)
    for name in ("server-0", "server-1"):
        assert "without a deadline" in await wait_event(stage, name, "Placed")
    assert await stage.metric("perllm_tasks_in_flight") == flying + 2

    await stage.lab.operator.kill()
    await stage.lab.start_operator()
    assert await stage.metric("perllm_tasks_in_flight") == flying + 2
    await asyncio.sleep(12.0)  # for longer than the ledger may differ from the pods
    assert await stage.metric("perllm_tasks_in_flight") == flying + 2
    assert await stage.metric("perllm_ledger_drift") == 0

    await stage.lab.client.delete(f"/apis/apps/v1/namespaces/{stage.namespace}/statefulsets/server")

    async def are_gone() -> bool:
        return await stage.metric("perllm_tasks_in_flight") == flying

    await wait_until(are_gone, timeout_s=30.0)
    assert await stage.events("Completed") == {}


async def test_wrong_annotations_are_named_in_an_event_and_can_be_corrected(stage: Stage) -> None:
    await create_pod(stage, "wrong", build_template(stage, deadline="soon"))
    await wait_event(stage, "wrong", "FailedScheduling", "annotation perllm.io/deadline: ")
    silent = build_template(stage)
    del silent["metadata"]["annotations"][names.MODEL_ANNOTATION]
    await create_pod(stage, "silent", silent)
    await wait_event(stage, "silent", "FailedScheduling", "annotation perllm.io/model is missing")
    change = {"metadata": {"annotations": {names.DEADLINE_ANNOTATION: "60s"}}}
    await stage.lab.client.patch(f"{stage.pods_path}/wrong", change)
    await wait_event(stage, "wrong", "Completed")


async def test_a_pod_with_the_label_of_tasks_is_placed_once_that_is_removed(stage: Stage) -> None:
    flying = await stage.metric("perllm_tasks_in_flight")
    labelled = build_template(stage)
    labelled["metadata"]["labels"][names.TASK_LABEL] = "mine"
    await create_pod(stage, "labelled", labelled)
    words = "label perllm.io/task is for pods of tasks: remove it"
    await wait_event(stage, "labelled", "FailedScheduling", words)
    change = {"metadata": {"labels": {names.TASK_LABEL: None}}}
    await stage.lab.client.patch(f"{stage.pods_path}/labelled", change)
    await wait_event(stage, "labelled", "Completed")
    assert await stage.metric("perllm_tasks_in_flight") == flying


async def test_a_rejected_pod_is_bound_soon_after_a_served_task_has_made_room(stage: Stage) -> None:
    for number in range(EDGE_SLOTS):
        await create_task(stage, f"long-{number}", output_tokens=500 if number == 0 else 20_000)
    for number in range(EDGE_SLOTS):
        await stage.wait_status(f"long-{number}", lambda status: status.get("phase") == "Running")
    await check_bound_after(stage, lambda: stage.wait_final("long-0", timeout_s=90.0))
    # The end of a pod makes kube-scheduler retry by itself, that of a request does not.
    assert any(names.RETRY_LABEL in state["metadata"]["labels"] for state in stage.seen["waits"])


async def test_a_rejected_pod_is_bound_soon_after_another_pod_has_made_room(stage: Stage) -> None:
    for number in range(EDGE_SLOTS):
        pod = build_template(stage, output_tokens=500 if number == 0 else 20_000, tiers="edge")
        await create_pod(stage, f"long-{number}", without_gpu(pod))
    for number in range(EDGE_SLOTS):
        await wait_node(stage, f"long-{number}", timeout_s=30.0)

    async def has_ended() -> bool:
        return bool((await stage.pods())["long-0"]["status"]["phase"] == "Succeeded")

    await check_bound_after(stage, lambda: wait_until(has_ended, timeout_s=90.0))


def without_gpu(pod: Object) -> Object:
    """Have a pod take a slot that PerLLM counts and kube-scheduler does not."""
    del pod["spec"]["containers"][0]["resources"]["limits"]
    return pod


async def check_bound_after(stage: Stage, wait_for_room: Callable[[], Awaitable[object]]) -> None:
    """Check that a pod for the full node is rejected, and bound soon after there is room."""
    await create_pod(stage, "waits", without_gpu(build_template(stage, tiers="edge")))
    await wait_event(stage, "waits", "FailedScheduling", "no slot is free")
    await wait_for_room()
    ended_s = time.monotonic()
    await wait_node(stage, "waits", timeout_s=SOON_S)
    print(f"bound {time.monotonic() - ended_s:.2f} s after there was room")
