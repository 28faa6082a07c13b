"""A served task whose model no agent serves runs as a pod that the operator makes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from perllm.api import names
from perllm.api.prompt_variables import read_variables
from perllm.cluster.client import ApiError, ApiTimeoutError
from perllm.cluster.node import Taint
from perllm.cluster.times import format_time
from perllm.controller.pods import build_pod
from perllm.controller.reconciler import PROGRESS_DELAY_S
from perllm.controller.runner_pods import RunnerPods
from perllm.controller.settings import ControllerSettings
from perllm.energy.settlement import SETTLING_S
from perllm.placement.serving import NOTHING
from perllm.settings.tasks import RunnerSettings
from unit.controller.one_node_cluster import PODS
from unit.controller.samples import make_task
from unit.controller.test_served import SERVING, ServedCluster
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK

pytestmark = pytest.mark.looptime

RUNNER = RunnerSettings(image="registry/perllm:1", server_url="http://$(NODE_IP):8000/v1")
REPORT = {"inferenceSeconds": 4.0, "outputTokens": 30, "text": "This.", "truncated": True}
QUOTA = ApiError(403, "Forbidden", "exceeded quota")


class UnservedCluster(ServedCluster):
    """A cluster without agents, where the operator may make runner pods."""

    settings = ControllerSettings(runner=RUNNER)

    def start(self) -> None:
        is_new = self.running is None
        super().start()
        if is_new:
            self.scheduler.put_serving("n", NOTHING)
            self.scheduler.note_servers_known()

    def serve(self) -> None:
        """Have an agent find a server of the model."""
        self.scheduler.put_serving("n", SERVING)

    @property
    def events(self) -> list[str]:
        """The reasons of all events."""
        return [body["reason"] for path, body in self.api.calls_of("POST") if path.endswith("events")]

    @property
    def slots_taken(self) -> float:
        """Slots of node n that tasks in flight take, as a node has them for pods."""
        row = np.array([self.parts.fleet.row("n")])
        return float(self.parts.ledger.loads(row, self.now_s()).taken[0])

    def answer(self, name: str = "t-1", exit_code: int = 0) -> None:
        """End a runner pod."""
        ended = {
            "exitCode": exit_code,
            "startedAt": format_time(self.now_s() - 5.0),
            "finishedAt": format_time(self.now_s()),
            "message": orjson.dumps(REPORT).decode(),
        }
        statuses = [{"name": "runner", "state": {"terminated": ended}}]
        self.pod(name, status={"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": statuses})


class ClusterWithoutRunners(UnservedCluster):
    """The same, where the operator makes none."""

    settings = ControllerSettings()


@pytest.fixture
async def cluster() -> AsyncIterator[UnservedCluster]:
    cluster = UnservedCluster()
    yield cluster
    cluster.stop()


async def test_a_task_that_no_agent_serves_is_answered_by_a_pod(cluster: UnservedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(2)
    assert cluster.pods == ["t-1"]
    cluster.see_pod()
    await asyncio.sleep(1.5)
    assert (cluster.status()["phase"], cluster.status()["runsAs"]) == ("Pending", "pod")
    cluster.bind()
    await asyncio.sleep(6)
    cluster.answer()
    await asyncio.sleep(SETTLING_S + 2)
    status = cluster.status()
    assert (status["phase"], status["runsAs"], status["observed"]["inference"]) == ("Succeeded", "pod", 4.0)
    assert status["result"] == {"text": "This.", "truncated": True}
    assert cluster.parts.learner.summaries("n")["m"].count == 1
    assert len(cluster.parts.ledger) == 0
    assert cluster.events == ["Placed"]


async def test_runner_pods_take_slots_of_the_node(cluster: UnservedCluster) -> None:
    for name in ("a", "b", "c"):
        cluster.ask(name)
    await asyncio.sleep(2)
    assert sorted(cluster.pods) == ["a-1", "b-1"]


async def test_no_pod_is_made_before_agents_had_time_to_report() -> None:
    cluster = UnservedCluster()
    ServedCluster.start(cluster)
    cluster.scheduler.put_serving("n", NOTHING)
    cluster.ask()
    await asyncio.sleep(2)
    assert cluster.pods == []
    assert cluster.condition("Scheduled")["reason"] == "Waiting"
    cluster.scheduler.note_servers_known()
    await asyncio.sleep(0.1)
    assert cluster.pods == ["t-1"]
    cluster.stop()


async def test_a_task_that_waits_for_its_pod_runs_as_a_request_once_an_agent_serves_it(
    cluster: UnservedCluster,
) -> None:
    cluster.api.fail("POST", *[QUOTA] * 50)
    cluster.ask()
    await asyncio.sleep(2)
    cluster.serve()
    await asyncio.sleep(30)
    assert (cluster.status()["runsAs"], cluster.status()["attempts"]) == ("request", 1)


async def test_a_pod_that_is_created_late_does_not_run_next_to_the_request(cluster: UnservedCluster) -> None:
    cluster.api.fail("POST", ApiTimeoutError("no answer in time"))
    cluster.ask()
    await asyncio.sleep(0.5)
    cluster.serve()
    await asyncio.sleep(5)
    assert cluster.status()["runsAs"] == "request"
    cluster.api.store(f"{PODS}/t-1", **build_pod(make_task(), 1, "perllm"))
    assert cluster.controller.request_of(cluster.api.read(f"{PODS}/t-1") or {}) is None
    cluster.see_pod()
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is None
    assert (cluster.status()["phase"], cluster.status()["attempts"]) == ("Running", 1)
    assert len(cluster.parts.ledger) == 1


async def test_an_attempt_keeps_its_way_and_the_next_one_may_go_the_other(cluster: UnservedCluster) -> None:
    cluster.ask(retries=2)
    await asyncio.sleep(1)
    cluster.serve()
    cluster.bind()
    await asyncio.sleep(6)
    assert cluster.status()["runsAs"] == "pod"
    cluster.answer(exit_code=3)
    await asyncio.sleep(2)
    assert (cluster.status()["runsAs"], cluster.status()["attempts"]) == ("request", 2)
    cluster.scheduler.put_serving("n", NOTHING)
    cluster.report(attempt=2, end="Failed", problem="the server aborted the answer")
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1", "t-3"]
    assert cluster.status()["failedAttempts"] == [1, 2]


async def test_a_restart_knows_which_way_each_attempt_went(cluster: UnservedCluster) -> None:
    cluster.ask("pod")
    await asyncio.sleep(1)
    cluster.bind("pod-1", task_id="uid-pod")
    cluster.serve()
    cluster.ask("request")
    await asyncio.sleep(PROGRESS_DELAY_S)
    assert cluster.slots_taken == 1.0
    cluster.stop()
    posts = len(cluster.api.calls_of("POST"))
    restarted = UnservedCluster(cluster.api, cluster.begun_s)
    restarted.start()
    # Had the API server created a pod for the request as well, it would be removed.
    cluster.api.store(f"{PODS}/request-1", **build_pod(make_task("request"), 1, "perllm"))
    for name in ("pod-1", "request-1"):
        restarted.see_pod(name)
    for name in ("pod", "request"):
        restarted.controller.on_task(cluster.api.read(names.task_path("lab", name)) or {}, deleted=False)
    await asyncio.sleep(2)
    assert len(cluster.api.calls_of("POST")) == posts
    assert (cluster.status("pod")["runsAs"], cluster.status("request")["runsAs"]) == ("pod", "request")
    assert restarted.slots_taken == 1.0
    assert cluster.api.read(f"{PODS}/pod-1") is not None
    assert cluster.api.read(f"{PODS}/request-1") is None
    restarted.stop()


async def test_a_pod_that_the_api_server_finds_invalid_is_tried_again(cluster: UnservedCluster) -> None:
    cluster.api.fail("POST", *[ApiError(422, "Invalid", "spec.containers[0].image: required")] * 3)
    cluster.ask()
    await asyncio.sleep(2)
    assert "spec.containers[0].image" in cluster.status()["message"]
    await asyncio.sleep(20)
    assert cluster.api.read(f"{PODS}/t-1") is not None


async def test_without_runners_status_and_event_say_that_no_node_serves_the_model() -> None:
    cluster = ClusterWithoutRunners()
    cluster.ask()
    await asyncio.sleep(5)
    assert cluster.condition("Scheduled")["reason"] == "NoModelServer"
    message = cluster.status()["message"]
    assert "no node satisfies: a ready model server of m (1 node); start one where an agent finds it" in message
    assert cluster.events == ["NoModelServer"]
    cluster.stop()


async def test_agents_that_are_lost_take_no_pods_with_them(cluster: UnservedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(1)
    cluster.bind()
    cluster.serve()
    cluster.pod(metadata={"deletionTimestamp": format_time(cluster.now_s() + 30.0)})
    await asyncio.sleep(2)
    assert (cluster.status()["runsAs"], cluster.status()["attempts"]) == ("request", 2)
    cluster.controller.lose_runs(lambda node: True)
    cluster.answer()
    await asyncio.sleep(2)
    assert (cluster.status()["phase"], cluster.status()["podName"]) == ("Succeeded", "t-1")


def build(*taints: Taint, **spec: Any) -> dict[str, Any]:
    node = replace(make_node("n"), taints=taints, resources={names.GPU_RESOURCE: 4.0})
    task = make_task(**{"template": None, "promptTokens": None, "prompt": "Which?", **spec})
    template = RunnerPods(RUNNER, {"n": node}).build_template(task.valid_spec, "n")
    return build_pod(task, 1, "perllm", runner_template=template)


def test_a_runner_pod_gets_prompt_address_and_slot_and_nothing_else_of_the_task() -> None:
    pod = build(prompt="Is $(NODE_IP) one?", maxTokens=5)
    (container,) = pod["spec"]["containers"]
    variables = {one["name"]: one.get("value", "") for one in container["env"]}
    assert (variables["PERLLM_URL"], container["image"]) == (RUNNER.server_url, RUNNER.image)
    assert orjson.loads(read_variables(variables)) == {
        "messages": [{"role": "user", "content": "Is $(NODE_IP) one?"}],
        "max_tokens": 5,
    }
    assert container["args"] == ["--model=m", "--prompt-from-env", "--timeout=600", "--quiet"]
    assert container["resources"]["limits"] == {"memory": "256Mi", names.GPU_RESOURCE: "1"}
    assert pod["metadata"]["finalizers"] == [names.OUTCOME_FINALIZER]


@pytest.mark.parametrize(
    ("resources", "limits"),
    [({"amd.com/gpu": 8.0}, {"amd.com/gpu": "1"}), ({"": 1.0}, {})],
    ids=["AMD", "no device plugin"],
)
def test_a_runner_pod_asks_for_what_its_node_has(resources: dict[str, float], limits: dict[str, str]) -> None:
    node = replace(make_node("n"), resources=resources)
    task = make_task(template=None, promptTokens=None, prompt="Which?")
    template = RunnerPods(RUNNER, {"n": node}).build_template(task.valid_spec, "n")
    assert template["spec"]["containers"][0]["resources"]["limits"] == {"memory": "256Mi", **limits}


def test_a_runner_pod_is_restricted() -> None:
    spec = build()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_runner_pod_tolerates_what_lasts_of_the_taints_of_the_fleet() -> None:
    pod = build(Taint("gpu", "a", "NoSchedule"), Taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"))
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]


async def test_taints_that_last_keep_no_runner_pod_off_a_node(cluster: UnservedCluster) -> None:
    cluster.start()
    cluster.scheduler.put_node(replace(make_node("n"), taints=(Taint("gpu", "a", "NoSchedule"),)), UPLINK)
    cluster.ask()
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1"]
