"""What an agent may write with the token of its pod, on a real API server: what concerns its own node, and no more."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from perllm.agent.assignments import read_assignment
from perllm.agent.inquiry import Inquiry, Reply
from perllm.agent.reports import RunReports
from perllm.agent.results import build_report
from perllm.api import names
from perllm.api.prompt import MAX_PROMPT_LENGTH, MAX_PROMPTS
from perllm.api.task_answer import MAX_STORED_LENGTH
from perllm.api.task_status import MAX_ANSWER_LENGTH, MAX_RECORD_LENGTH
from perllm.cluster.agent_policy import AGENT_FIELDS, build_agent_policies
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.credentials import load_credentials
from perllm.cluster.rbac import build_agent_manifests, collection_path
from perllm.completions.answer import Answer
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.nodes.agents import with_token
from unit.cluster.queues import make_writes

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "agents"
ACCOUNT = {"kind": "ServiceAccount", "name": "agent", "namespace": NAMESPACE}
USER = f"system:serviceaccount:{NAMESPACE}:agent"
OWN, OTHER = "agents-node-a", "agents-node-b"
ANSWERS = names.task_answers_path(NAMESPACE)
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
TIMEOUT_S = 30.0
TIME = "2026-01-01T00:00:00.000000Z"
LATER = "2026-01-01T00:00:09.000000Z"
PLACED = {
    "phase": "Running",
    "nodeName": OWN,
    "podName": "task-2",
    "runsAs": "request",
    "attempts": 2,
    "tier": "edge",
    "decision": {"policy": "cs-ucb", "candidates": 3, "rejected": {"late": 1}},
    "conditions": [{"type": "Scheduled", "status": "True", "lastTransitionTime": TIME, "reason": "Placed"}],
}


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster with agents on two nodes, which differ only in the pods that their tokens are bound to."""

    admin: Client
    own: Client
    other: Client
    unbound: Client

    async def place(self, name: str, **status: Any) -> str:
        """Create a task that was placed on the agent's own node; return the path of its status."""
        await self.admin.post(names.tasks_path(NAMESPACE), make_task(name))
        path = names.task_status_path(NAMESPACE, name)
        await self.admin.patch(path, {"status": PLACED | status})
        return path

    async def report(self, path: str, *more: Object, attempt: int = 2, text: str = "Jupiter") -> Object:
        """Send a report as agents do, possibly with more changes in the same patch."""
        return await self.own.patch(path, [*make_report(attempt, text), *more], kind=PatchKind.JSON)

    async def deny(self, path: str, *more: Object, **report: Any) -> str:
        """Return why a report is denied."""
        return await denial(self.report(path, *more, **report))


def make_task(name: str, prompt: str = "Which is the largest planet?") -> Object:
    spec = {"model": "llama", "deadline": "5s", "prompt": prompt}
    return {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "metadata": {"name": name}, "spec": spec}


def make_report(attempt: int = 2, text: str = "Jupiter") -> list[Object]:
    run = {"attempt": attempt, "end": "Answered", "startTime": TIME, "endTime": LATER, "tokens": 3}
    return [add("run", run), add("result", {"text": text})]


def add(field: str, value: object) -> Object:
    return {"op": "add", "path": f"/status/{field}", "value": value}


async def denial(request: Any) -> str:
    """Return the message with which an admission policy denies a request."""
    with pytest.raises(ApiError) as error:
        await request
    assert (error.value.status, error.value.reason) == (403, "Forbidden")
    assert "ValidatingAdmissionPolicy" in error.value.message
    return error.value.message


async def is_denied_by_policy(request: Any) -> bool:
    """Whether a policy denies a request already; before, the API server may not have read rights or policies."""
    try:
        await request
    except ApiError as error:
        return "ValidatingAdmissionPolicy" in error.message
    return False


async def issue_token(admin: Client, node: str | None) -> str:
    """Return a token of the agents' account, bound to a pod on a node as kubelet requests it, or to nothing."""
    spec: Object = {}
    if node:
        await admin.post("/api/v1/nodes", {"metadata": {"name": node}})
        containers = [{"name": "agent", "image": "perllm"}]
        pod = {"nodeName": node, "serviceAccountName": ACCOUNT["name"], "containers": containers}
        created = await admin.post(names.pods_path(NAMESPACE), {"metadata": {"name": f"agent-on-{node}"}, "spec": pod})
        metadata = created["metadata"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"boundObjectRef": reference}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT['name']}/token"
    token: str = (await admin.post(path, {"spec": spec}))["status"]["token"]
    return token


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> ControlPlane:
    """A control plane that serves the resources of PerLLM."""
    for arguments in (("apply", "--server-side"), ("wait", "--for=condition=Established", "--timeout=30s")):
        subprocess.run([*control_plane.kubectl_argv, *arguments, "-f", CRDS], check=True, capture_output=True)
    return control_plane


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(served: ControlPlane) -> AsyncIterator[Site]:
    credentials = load_credentials(served.admin_kubeconfig)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(Client(credentials))
        await admin.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await admin.post(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": ACCOUNT["name"]}})
        tokens = [await issue_token(admin, node) for node in (OWN, OTHER, None)]
        agents = [await stack.enter_async_context(Client(with_token(credentials, token))) for token in tokens]
        site = Site(admin, *agents)
        rights = build_agent_manifests(ACCOUNT, NAMESPACE, namespaces=[NAMESPACE], server_namespaces=[NAMESPACE])
        manifests = [*rights, *build_agent_policies(USER)]
        for manifest in manifests:
            await admin.post(collection_path(manifest), manifest)
        await wait_until_confined(site)
        yield site
        for manifest in manifests:
            await admin.delete(f"{collection_path(manifest)}/{manifest['metadata']['name']}")
        for path in (f"/api/v1/nodes/{OWN}", f"/api/v1/nodes/{OTHER}", f"/api/v1/namespaces/{NAMESPACE}"):
            await admin.delete(path)


async def wait_until_confined(site: Site) -> None:
    probe = await site.place("probe")
    async with asyncio.timeout(TIMEOUT_S):
        while not await is_denied_by_policy(site.unbound.patch(probe, make_report(), kind=PatchKind.JSON)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        while not await is_denied_by_policy(site.unbound.post(LEASES, {"metadata": {"generateName": "probe-"}})):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_an_agent_reports_about_a_task_on_its_node(site: Site) -> None:
    path = await site.place("own")
    before = (await site.admin.get(path))["status"]

    stored = (await site.report(path))["status"]

    assert (stored["run"]["tokens"], stored["result"]["text"]) == (3, "Jupiter")
    assert {key: value for key, value in stored.items() if key not in AGENT_FIELDS} == before


async def test_a_report_that_is_repeated_is_accepted_and_another_one_is_not(site: Site) -> None:
    path = await site.place("repeated")
    await site.report(path)

    assert (await site.report(path))["status"]["result"]["text"] == "Jupiter"
    assert "attempt 2 has a result already" in await site.deny(path, text="Saturn")


async def test_the_next_attempt_replaces_the_report_of_the_last_one(site: Site) -> None:
    path = await site.place("retried")
    await site.report(path)
    await site.admin.patch(path, {"status": {"attempts": 3}})

    assert (await site.report(path, attempt=3, text="Saturn"))["status"]["result"]["text"] == "Saturn"


async def test_reports_come_only_from_the_node_that_the_task_is_on(site: Site) -> None:
    path = await site.place("elsewhere", nodeName=OTHER)

    assert f"the agent of node {OWN} may not report about a task that does not run there" in await site.deny(path)
    await site.other.patch(path, make_report(), kind=PatchKind.JSON)


@pytest.mark.parametrize("runs_as", ["pod", None])
async def test_a_task_that_is_not_a_request_has_no_report(site: Site, runs_as: str | None) -> None:
    path = await site.place(f"runs-as-{runs_as}".lower(), runsAs=runs_as)

    assert "does not run there as a request" in await site.deny(path)


async def test_a_task_without_status_has_no_report(site: Site) -> None:
    await site.admin.post(names.tasks_path(NAMESPACE), make_task("waiting"))
    path = names.task_status_path(NAMESPACE, "waiting")

    request = site.own.patch(path, {"status": {"run": make_report()[0]["value"], "nodeName": OWN}})

    assert "does not run there as a request" in await denial(request)


@pytest.mark.parametrize("attempt", [1, 3])
async def test_only_the_current_attempt_has_a_report(site: Site, attempt: int) -> None:
    path = await site.place(f"attempt-{attempt}")

    assert "the report is not about the current attempt, 2" in await site.deny(path, attempt=attempt)


async def test_an_answer_without_a_run_is_not_accepted(site: Site) -> None:
    path = await site.place("no-run")

    request = site.own.patch(path, [add("result", {"text": "Jupiter"})], kind=PatchKind.JSON)

    assert "the report is not about the current attempt" in await denial(request)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Rejected"])
async def test_a_task_that_has_ended_has_no_more_reports(site: Site, phase: str) -> None:
    path = await site.place(f"ended-{phase.lower()}", phase=phase)

    assert f"the task has ended already: {phase}" in await site.deny(path)


@pytest.mark.parametrize(
    "change",
    [
        add("phase", "Succeeded"),
        add("nodeName", OTHER),
        add("message", "done"),
        add("deadlineMet", True),
        add("observed", {"energyJoules": 1}),
        add("completionTime", TIME),
        add("failedAttempts", [1]),
        add("decisionRecord", "{}"),
        add("decision/candidates", 4),
        add("decision/rejected/price", 1),
        add("conditions/0/reason", "Moved"),
        add("conditions/-", {"type": "Finished", "status": "True", "lastTransitionTime": TIME, "reason": "X"}),
        {"op": "remove", "path": "/status/tier"},
        {"op": "remove", "path": "/status/decision"},
        {"op": "remove", "path": "/status/conditions"},
    ],
    ids=lambda change: change["path"],
)
async def test_nothing_else_in_the_status_may_change(site: Site, change: Object) -> None:
    path = await site.place(f"kept{change['path'].removeprefix('/status').replace('/', '-').lower()}x")

    assert "an agent may change nothing in a task but status.result and status.run" in await site.deny(path, change)


async def test_labels_and_spec_remain_as_they_are(site: Site) -> None:
    path = await site.place("metadata")
    more: list[Object] = [
        {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/held"]},
        {"op": "replace", "path": "/spec/deadline", "value": "9s"},
    ]

    stored = await site.report(path, *more)

    assert not {"labels", "finalizers"} & set(stored["metadata"])
    assert stored["spec"]["deadline"] == "5s"


async def test_the_largest_status_is_within_the_limits_of_the_policy(site: Site) -> None:
    """The API server limits what the evaluation of a policy may cost."""
    await site.admin.post(names.tasks_path(NAMESPACE), make_task("large", "x" * MAX_PROMPT_LENGTH))
    path = names.task_status_path(NAMESPACE, "large")
    condition = {"status": "True", "lastTransitionTime": TIME, "reason": "x" * 1024, "message": "x" * 32768}
    large = {
        "message": "x" * 4096,
        "decisionRecord": "x" * MAX_RECORD_LENGTH,
        "failedAttempts": list(range(64)),
        "conditions": [{"type": f"Type{number}", **condition} for number in range(16)],
        "run": make_report(1)[0]["value"] | {"problem": "x" * 4096},
        "result": {"text": "y" * MAX_ANSWER_LENGTH},
    }
    await site.admin.patch(path, {"status": PLACED | large})

    for _ in range(2):
        stored = await site.report(path, text="z" * MAX_ANSWER_LENGTH)

    assert len(json.dumps(stored)) > MAX_PROMPT_LENGTH + MAX_ANSWER_LENGTH + 16 * 32768


async def test_an_agent_stores_an_answer_of_its_node_and_names_it_in_the_status(site: Site) -> None:
    path = await site.place("long")
    task = await site.admin.get(path)
    answer = make_answer(task)
    name = answer["metadata"]["name"]

    stored = await site.own.post(ANSWERS, answer)
    with pytest.raises(ApiError) as repeated:
        await site.own.post(ANSWERS, answer)
    status = (await site.report(path, add("result", {"answerName": name})))["status"]

    assert (stored["answers"], repeated.value.reason) == (answer["answers"], "AlreadyExists")
    assert status["result"] == {"answerName": name}
    for request in (
        site.own.get(f"{ANSWERS}/{name}"),
        site.own.delete(f"{ANSWERS}/{name}"),
        site.own.patch(f"{ANSWERS}/{name}", {"attempt": 3}),
    ):
        with pytest.raises(ApiError, match="403"):
            await request


async def test_the_largest_answers_are_reported_by_an_agent_and_fit_into_an_object(site: Site) -> None:
    path = await site.place("largest")
    assignment = read_assignment(await site.admin.get(path))
    assert assignment is not None
    # In JSON, this character takes six bytes.
    answer = Answer(pieces=["<" * MAX_STORED_LENGTH], chunks=1, finish_reason="stop")
    inquiry = Inquiry([Reply(answer, None)] * MAX_PROMPTS, has_list=True)
    name = names.task_answer_name(*assignment.id, OWN)
    report = build_report(assignment.attempt, inquiry, name, begun_unix_s=0.0, length_s=1.0)

    writes = make_writes()
    RunReports(site.own, writes, now=time.monotonic).put(assignment, report)
    running = asyncio.create_task(writes.run())
    await writes.drain()
    running.cancel()

    status, stored = (await site.admin.get(path))["status"], await site.admin.get(f"{ANSWERS}/{name}")
    assert (status["run"]["end"], status["result"]) == ("Answered", {"answerName": name})
    assert {len(one["text"]) for one in stored["answers"]} == {MAX_STORED_LENGTH // MAX_PROMPTS}


@pytest.mark.parametrize(
    ("of", "name"),
    [("node", f"UID-2.{OTHER}"), ("attempt", f"UID-3.{OWN}"), ("no-node", "UID-2"), ("task", f"another-2.{OWN}")],
)
async def test_an_answer_is_named_after_its_task_attempt_and_node(site: Site, of: str, name: str) -> None:
    task = await site.admin.get(await site.place(f"of-another-{of}"))
    answer = make_answer(task)
    answer["metadata"]["name"] = name.replace("UID", task["metadata"]["uid"])

    reason = await denial(site.own.post(ANSWERS, answer))

    assert f"the agent of node {OWN} may not write the llmtaskanswers of others" in reason


async def test_an_answer_belongs_to_its_task_and_nothing_else(site: Site) -> None:
    task = await site.admin.get(await site.place("owned"))
    node = {"apiVersion": "v1", "kind": "Node", "name": OWN, "uid": "1"}
    (owner,) = make_answer(task)["metadata"]["ownerReferences"]
    for owners in ([], [owner, node], [{**owner, "kind": "Node"}]):
        answer = make_answer(task)
        answer["metadata"]["ownerReferences"] = owners
        assert "an answer must be owned by its task and nothing else" in await denial(site.own.post(ANSWERS, answer))


@pytest.mark.parametrize("name", [f"UID-1.{OWN}", f"UID-2.{OTHER}", "another"])
async def test_a_status_names_only_the_answer_of_its_node_to_the_current_attempt(site: Site, name: str) -> None:
    path = await site.place(f"naming-{name.lower().replace('.', '-')}")
    uid = (await site.admin.get(path))["metadata"]["uid"]

    reason = await site.deny(path, add("result", {"answerName": name.replace("UID", uid)}))

    assert f"the answer to the current attempt is called {uid}-2.{OWN}" in reason


def make_answer(task: Object, node: str = OWN) -> Object:
    metadata = task["metadata"]
    owner = {key: value for key, value in metadata.items() if key in ("name", "uid")}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_ANSWER_KIND,
        "metadata": {
            "name": names.task_answer_name(metadata["uid"], 2, node),
            "ownerReferences": [{"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, **owner}],
        },
        "attempt": 2,
        "answers": [{"index": 0, "text": "Jupiter", "finishReason": "stop", "outputTokens": 3}],
    }


async def test_an_agent_keeps_the_object_of_its_node(site: Site) -> None:
    await site.own.post(names.node_servers_path(), make_node_server(OWN))

    stored = await site.own.patch(names.node_server_status_path(OWN), {"status": {"running": 3}})

    assert stored["status"]["running"] == 3


async def test_an_agent_may_not_write_the_object_of_another_node(site: Site) -> None:
    reason = f"the agent of node {OWN} may not write the llmnodeservers of others"

    assert reason in await denial(site.own.post(names.node_servers_path(), make_node_server(OTHER)))
    await site.other.post(names.node_servers_path(), make_node_server(OTHER))
    change = {"status": {"running": 3}}
    assert reason in await denial(site.own.patch(names.node_server_status_path(OTHER), change))


def make_node_server(node: str) -> Object:
    return {"apiVersion": names.API_VERSION, "kind": names.NODE_SERVER_KIND, "metadata": {"name": node}}


async def test_an_agent_renews_its_own_lease(site: Site) -> None:
    name = names.AGENT_LEASE_PREFIX + OWN
    await site.own.post(LEASES, make_lease(name))

    renewed = await site.own.patch(f"{LEASES}/{name}", {"spec": {"renewTime": LATER}})

    assert renewed["spec"]["renewTime"] == LATER


@pytest.mark.parametrize("name", [names.AGENT_LEASE_PREFIX + OTHER, "perllm", OWN])
async def test_an_agent_may_not_write_another_lease(site: Site, name: str) -> None:
    reason = f"the agent of node {OWN} may not write the leases of others"

    assert reason in await denial(site.own.post(LEASES, make_lease(name)))
    await site.admin.post(LEASES, make_lease(name))
    assert reason in await denial(site.own.patch(f"{LEASES}/{name}", {"spec": {"holderIdentity": OWN}}))


def make_lease(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"holderIdentity": name, "renewTime": TIME, "leaseDurationSeconds": 30}}


async def test_a_token_that_is_bound_to_no_pod_is_of_no_node(site: Site) -> None:
    path = await site.place("unbound")
    reason = "the token of an agent must be bound to a pod that runs on a node"

    assert reason in await denial(site.unbound.patch(path, make_report(), kind=PatchKind.JSON))
    assert reason in await denial(site.unbound.post(names.node_servers_path(), make_node_server("unbound")))
    assert reason in await denial(site.unbound.post(LEASES, make_lease(f"{names.AGENT_LEASE_PREFIX}x")))


async def test_other_accounts_are_not_affected(site: Site) -> None:
    path = await site.place("free", nodeName=OTHER)

    stored = await site.admin.patch(path, [*make_report(7), add("phase", "Failed")], kind=PatchKind.JSON)

    assert (stored["status"]["phase"], stored["status"]["run"]["attempt"]) == ("Failed", 7)
