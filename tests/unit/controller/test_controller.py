"""The controller at work: objects come in, requests to the API server go out."""

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.api.quantities import parse_duration_s
from perllm.api.task_status import TaskStatus
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError
from perllm.cluster.devices import read_claim
from perllm.cluster.events import EventRecorder
from perllm.cluster.obstacles import Obstacle
from perllm.cluster.pod import read_pod
from perllm.cluster.pod_ends import PodPatience
from perllm.cluster.times import format_time
from perllm.controller import controller, lifecycle
from perllm.controller.announcer import Announcer
from perllm.controller.assembly import ControllerContext, ControllerSettings, build_task_control
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.pods import build_pod
from perllm.controller.reconciler import PROGRESS_DELAY_S
from perllm.controller.suspensions import Suspensions
from perllm.controller.task import Task, read_task
from perllm.energy.bill import BillMetrics, Owner
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.energy.settlement import SETTLING_S
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.placement.counterfactual import Prospect
from perllm.placement.decision import Decision
from perllm.policy.contextual import CsUcb
from unit.cluster.device_objects import DRIVER, claim_object, request
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes
from unit.controller.samples import make_own_decision, task_object
from unit.energy.settlements import make_settlement
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import make_scheduler

pytestmark = pytest.mark.looptime

PODS = "/api/v1/namespaces/lab/pods"
START_S = 1000.0


class Cluster:
    """An API server with tasks, a controller that sees every change at once, and node n with two slots.

    Time and the controller start with the first task: virtual time begins in the test itself, not in its fixtures.
    """

    settings = ControllerSettings()

    def __init__(self, api: FakeApiServer | None = None, begun_s: float | None = None) -> None:
        self.api = api or FakeApiServer()
        self.running: asyncio.Task[None] | None = None
        self.begun_s: float | None = START_S
        self._wake = asyncio.Event()
        made = make_scheduler(make_node("n", slots=2), now_s=self.now_s, policy=CsUcb(), notify=self._wake.set)
        self.scheduler, self.parts = made.scheduler, made.parts
        self.registry = CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        meter = Meter.build("dcgm", "gpu", 2000.0, length_s=900.0)
        meter.counters.merge("n", "gpu", [(time_s, 100.0 * time_s) for time_s in range(1000, 1030)], 1030.0)
        energy = EnergyHistory([meter], absent_after_s=60.0)
        foreign = ForeignLoad(900.0)
        settlement = self.settlement = make_settlement(energy, self.now_s, foreign)
        client: Any = self.api
        self.writes = make_writes()
        self.guard = Guard(lambda kind: metrics.process.faults.labels(kind).inc(), Random(0))
        events = EventRecorder(client, self.writes, instance="host", unix_now=self.now_s)
        context = ControllerContext(
            client=client,
            writes=self.writes,
            settlement=settlement,
            announcer=Announcer(events, metrics, EndMetrics(self.registry), BillMetrics(self.registry)),
            metrics=metrics,
            guard=self.guard,
            now_s=self.now_s,
            unix_now=self.now_s,
            show_circuit=lambda *_: None,
            wake=self._wake,
            has_tasks=lambda: True,
            suspensions=self.build_suspensions(),
        )
        self.control = build_task_control(self.scheduler, self.parts, context, self.settings)
        self.controller = self.control.controller
        self.begun_s = begun_s

    def build_suspensions(self) -> Suspensions:
        return Suspensions()

    def now_s(self) -> float:
        loop_s = asyncio.get_running_loop().time()
        if self.begun_s is None:
            self.begun_s = loop_s
        return START_S + loop_s - self.begun_s

    def start(self) -> None:
        if self.running is None:
            self.running = asyncio.create_task(self._work())

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatch())
            group.create_task(self.writes.run())
            group.create_task(self.control.releases.run())
            group.create_task(self.control.drift.run())
            group.create_task(self.control.retirement.run())
            group.create_task(self._report_releases())

    async def _dispatch(self) -> None:
        expiry = asyncio.create_task(self._expire())
        try:
            await self.control.dispatcher.run()
        finally:
            expiry.cancel()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.scheduler.refresh()

    async def _report_releases(self) -> None:
        async for event in self.api.watch(PODS, {"resourceVersion": "0"}):
            item = self.api.read(f"{PODS}/{event['object']['metadata']['name']}")
            if event["type"] == "MODIFIED" and item == event["object"] and not item["metadata"].get("finalizers"):
                self.controller.on_pod(None, read_pod(item))

    def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()

    def create(self, name: str = "t", **fields: Any) -> None:
        self.start()
        item = self.api.store(names.task_path("lab", name), **task_object(name, **fields))
        self.controller.on_task(item, deleted=False)

    def delete(self, name: str = "t") -> None:
        item = self.api.read(names.task_path("lab", name))
        assert item is not None
        self.api.remove(names.task_path("lab", name))
        self.controller.on_task(item, deleted=True)

    def pod(self, name: str = "t-1", **fields: Any) -> None:
        """Change a pod, or report it for the first time."""
        self.controller.on_pod(None, read_pod(self.api.store(f"{PODS}/{name}", **fields)))

    def see_pod(self, name: str = "t-1") -> None:
        """Report a pod as it is."""
        item = self.api.read(f"{PODS}/{name}")
        assert item is not None
        self.controller.on_pod(None, read_pod(item))

    def lose_pod(self, name: str = "t-1") -> None:
        item = self.api.read(f"{PODS}/{name}")
        assert item is not None
        self.api.remove(f"{PODS}/{name}")
        self.controller.on_pod(read_pod(item), None)

    def report_gone(self, name: str, containers: list[Any], statuses: list[Any]) -> None:
        """Report a pod that the API server has deleted, with its last state."""
        metadata = {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "labels": {names.ATTEMPT_LABEL: "1"},
            "annotations": {names.CONTAINERS_ANNOTATION: "llm"},
            "deletionTimestamp": "1970-01-01T00:17:20Z",
            "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
        }
        status = {"phase": "Failed", "containerStatuses": statuses}
        spec = {"nodeName": "n", "containers": containers}
        self.controller.on_pod(read_pod({"metadata": metadata, "spec": spec, "status": status}), None)

    def bind(self, name: str = "t-1", **record: Any) -> None:
        task = self.api.read(names.task_path("lab", name.rpartition("-")[0]))
        due_s = START_S + parse_duration_s(task["spec"]["deadline"]) if task else START_S
        decided_s = self.now_s()
        decision = make_own_decision(decided_s=decided_s, time_left_s=due_s - decided_s, **record)
        annotations = {names.DECISION_ANNOTATION: decision.to_record()}
        self.pod(name, metadata={"annotations": annotations}, spec={"nodeName": "n"})

    def finish(self, name: str = "t-1", exit_code: int = 0) -> None:
        ended = {"exitCode": exit_code, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
        statuses = [{"name": "llm", "state": {"terminated": ended}}]
        self.pod(name, status={"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": statuses})

    def status(self, name: str = "t") -> dict[str, Any]:
        item = self.api.read(names.task_path("lab", name))
        return (item or {}).get("status") or {}

    def condition(self, kind: str, name: str = "t") -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.status(name)["conditions"] if one["type"] == kind)
        return found

    @property
    def pods(self) -> list[str]:
        return [body["metadata"]["name"] for path, body in self.api.calls_of("POST") if path == PODS]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


async def run_through(cluster: Cluster) -> None:
    """Let task t run on node n from 1002 s to 1010 s."""
    cluster.create()
    await asyncio.sleep(2)
    cluster.pod(phase="Pending")
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 1)


async def test_a_task_is_run_measured_learned_and_announced(cluster: Cluster) -> None:
    await run_through(cluster)
    status = cluster.status()
    assert (status["phase"], status["nodeName"], status["deadlineMet"]) == ("Succeeded", "n", True)
    assert (status["observed"]["energyQuality"], status["decision"]["policy"]) == ("measured", "cs-ucb")
    assert cluster.parts.learner.summaries("n")["m"].count == 1
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_outcomes_learned_total") == 1
    assert cluster.metric("perllm_decisions_total", policy="cs-ucb", tier="edge", explored="false") == 1
    assert cluster.metric("perllm_deadlines_total", tier="edge", met="true") == 1


class BillingCluster(Cluster):
    """Tasks are billed by their label team."""

    settings = ControllerSettings(bill_label="team")


async def test_a_task_is_billed_to_its_namespace_and_its_value_of_the_label() -> None:
    cluster = BillingCluster()
    cluster.api.store(names.task_path("lab", "t"), metadata={"labels": {"team": "red"}})
    await run_through(cluster)
    cluster.stop()

    assert cluster.settlement.find_owner("n", "uid-t-1") == Owner("lab", "red")
    for payer in ({"by": "namespace", "payer": "lab"}, {"by": "label", "payer": "red"}):
        assert cluster.metric("perllm_bill_tasks_total", **payer, phase="Succeeded") == 1
        assert cluster.metric("perllm_bill_deadlines_total", **payer, met="true") == 1
        assert cluster.metric("perllm_bill_measurements_total", **payer, quality="measured") == 1


async def test_a_report_has_the_node_the_promise_and_the_time_of_a_task(cluster: Cluster) -> None:
    await run_through(cluster)

    assert cluster.metric("perllm_node_tasks_total", node="n", tier="edge", gpu="T4", met="true") == 1
    assert cluster.metric("perllm_promises_total", chance="90-95", met="true") == 1
    assert cluster.metric("perllm_node_task_seconds_total", node="n", part="queue") == pytest.approx(2, abs=1)
    parts = ("queue", "transfer", "inference", "other")
    all_s = sum(cluster.metric("perllm_node_task_seconds_total", node="n", part=part) for part in parts)
    assert all_s == pytest.approx(cluster.status()["observed"]["latency"])


async def run_with_counterfactual(cluster: Cluster) -> None:
    """Let task t run on node n, with a decision that says what was expected elsewhere."""
    cluster.create()
    await asyncio.sleep(2)
    elsewhere = make_own_decision(energy_j=5000.0, fixed_j=4600.0).forecast
    cluster.bind(counterfactual=Prospect(node="k", gpu_type="A100", at_s=START_S, forecast=elsewhere))
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 1)


async def test_a_task_is_compared_with_its_counterfactual(cluster: Cluster) -> None:
    await run_with_counterfactual(cluster)
    assert cluster.status()["decision"]["counterfactual"]["node"] == "k"
    assert cluster.metric("perllm_compared_tasks", unit="joules") == 1
    assert cluster.metric("perllm_saved_joules", bound="total") > 3000


async def test_a_task_is_learned_from_even_if_the_comparison_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(type(cluster.scheduler), "review", fail)
    await run_with_counterfactual(cluster)
    assert cluster.parts.learner.summaries("n")["m"].count == 1
    assert cluster.metric("perllm_compared_tasks", unit="joules") == 0


async def test_an_outcome_is_learned_once_it_is_stored(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    cluster.api.fail("PATCH", *[ApiUnreachableError("gone")] * 5)
    await asyncio.sleep(SETTLING_S + 0.1)
    assert cluster.parts.learner.summaries("n") == {}
    await asyncio.sleep(20)
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_a_restart_loses_nothing_and_runs_nothing_twice(cluster: Cluster) -> None:
    await run_through(cluster)
    cluster.create("waits")
    cluster.stop()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    calls = len(cluster.api.calls)
    for path in (f"{PODS}/t-1", f"{PODS}/waits-1"):
        if (pod := cluster.api.read(path)) is not None:
            restarted.controller.on_pod(None, read_pod(pod))
    for name in ("t", "waits"):
        item = cluster.api.read(names.task_path("lab", name))
        assert item is not None
        restarted.controller.on_task(item, deleted=False)
    assert restarted.parts.learner.summaries("n")["m"].count == 1
    assert len(cluster.api.calls) == calls
    assert restarted.scheduler.waiting == 1
    restarted.stop()


async def test_a_running_task_counts_as_in_flight_after_a_restart(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.see_pod()
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted.controller.on_task(item, deleted=False)
    assert len(restarted.parts.ledger) == 1


async def test_the_size_of_a_claim_that_is_created_after_its_task_counts() -> None:
    class DeviceCluster(Cluster):
        settings = ControllerSettings(device_classes=(DRIVER,))

    cluster = DeviceCluster()
    cluster.create("first", template=claiming("c"), deadline="1h")
    template = replace(read_claim(claim_object("c", request(2))), is_template=True)
    cluster.controller.on_claim(None, template)
    cluster.create("second", template=claiming("c"), deadline="1h")
    await asyncio.sleep(1)
    assert cluster.pods == ["first-1"]
    cluster.stop()


def claiming(name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "llm", "image": "llm"}]}
    return {"spec": {**spec, "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}]}}


async def test_the_successor_of_a_lost_pod_stays_in_flight_when_that_is_gone_at_last(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:16:43Z"})
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1", "t-2"]
    cluster.bind("t-2")
    cluster.lose_pod("t-1")
    assert len(cluster.parts.ledger) == 1
    assert cluster.status().get("phase") != "Failed"


async def test_a_pod_that_vanishes_unbound_is_replaced(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(0.1)
    cluster.pod(status={"phase": "Failed", "reason": "OutOfcpu"}, spec={"nodeName": "n"})
    await asyncio.sleep(0.1)
    cluster.pod("t-2", status={"phase": "Pending"})
    cluster.lose_pod("t-2")
    await asyncio.sleep(0.1)
    assert cluster.pods == ["t-1", "t-2", "t-3"]


async def test_a_failed_task_expires_at_its_time(cluster: Cluster) -> None:
    cluster.create(ttlAfterFinished="1m")
    await asyncio.sleep(1)
    cluster.bind()
    cluster.finish(exit_code=3)
    await asyncio.sleep(59)
    assert cluster.status()["phase"] == "Failed"
    cluster.api.fail("DELETE", ApiUnreachableError("gone"))
    await asyncio.sleep(5)
    assert cluster.api.read(names.task_path("lab", "t")) is None


async def test_a_rejected_task_expires_at_its_time(cluster: Cluster) -> None:
    cluster.create(onInfeasible="Reject", tiers=["cloud"], ttlAfterFinished="10s")
    await asyncio.sleep(1)
    status = cluster.status()
    assert status["phase"] == "Rejected"
    assert status["message"] == "no node satisfies: tiers cloud (1 node); onInfeasible is Reject"
    await asyncio.sleep(10)
    assert cluster.api.read(names.task_path("lab", "t")) is None


async def test_a_rejection_names_the_best_node(cluster: Cluster) -> None:
    cluster.create(onInfeasible="Reject", deadline="2s")
    await asyncio.sleep(0.5)
    message = cluster.status()["message"]
    assert cluster.status()["phase"] == "Rejected"
    assert message.startswith(
        "no node is expected to meet the deadline of 2s (excluded: 1 by late); best is n with a chance"
    )
    assert "at least 50% is required" in message


async def test_the_deadline_ends_a_task_that_says_so(cluster: Cluster) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(30)
    assert cluster.status()["phase"] == "Failed"
    assert [path for path, _ in cluster.api.calls_of("DELETE")] == [f"{PODS}/t-1"]
    assert cluster.api.calls_of("DELETE")[0][1]["preconditions"] == {"uid": "uid-t-1"}


async def end_at_deadline(cluster: Cluster) -> dict[str, Any]:
    """Let task t be placed at 1001 s and ended at its deadline of 30 s; return its pod as it was."""
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    pod = copy.deepcopy(pod)
    await asyncio.sleep(30)
    assert cluster.api.read(f"{PODS}/t-1") is None
    return pod


async def test_a_task_that_was_ended_at_its_deadline_is_a_miss_of_its_node(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    cluster.controller.on_pod(read_pod(pod), None)
    learner = cluster.parts.learner
    assert learner.recent("n").ids == ["uid-t"]
    assert learner.summaries("n") == {}


async def test_a_pod_that_a_node_lost_is_not_a_miss_of_it(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    pod["status"] = {"phase": "Failed", "reason": "NodeLost"}
    cluster.controller.on_pod(read_pod(pod), None)
    assert cluster.parts.learner.recent("n").ids == []


async def test_a_pod_that_outlives_its_deletion_is_not_a_miss_of_its_node(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    await asyncio.sleep(100)
    cluster.controller.on_pod(read_pod(pod), None)
    assert cluster.parts.learner.recent("n").ids == []


async def test_a_task_that_never_got_a_node_is_not_a_miss_of_any(cluster: Cluster) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s", tiers=["cloud"])
    await asyncio.sleep(31)
    assert cluster.status()["phase"] == "Failed"
    assert cluster.parts.learner.recent("n").ids == []


async def test_every_task_counts_once_in_the_mean_task(cluster: Cluster) -> None:
    learner = cluster.parts.learner
    learner.warm("n", "m")
    before = learner.laws("m", np.array([0])).usual.prompt_tokens
    cluster.create(promptTokens=5000)
    once = learner.laws("m", np.array([0])).usual.prompt_tokens
    await asyncio.sleep(1)
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    restarted.controller.on_task(item, deleted=False)
    assert once > before
    assert restarted.parts.learner.laws("m", np.array([0])).usual.prompt_tokens == before
    restarted.stop()


async def test_a_template_that_the_api_server_denies_ends_the_task(cluster: Cluster) -> None:
    cluster.api.fail("POST", ApiError(422, "Invalid", "spec.containers[0].image: Required value"))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Rejected"
    assert "spec.containers[0].image: Required value" in cluster.status()["message"]


async def test_a_template_that_no_pod_can_be_made_from_ends_the_task(cluster: Cluster) -> None:
    cluster.api.fail("POST", TypeError("Recursion limit reached"))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Rejected"
    assert (
        "spec.template cannot be used: no pod can be made from it: TypeError: Recursion limit reached"
        in cluster.status()["message"]
    )


async def test_a_fault_of_the_operator_is_not_a_verdict_on_a_template(cluster: Cluster) -> None:
    cluster.api.fail("POST", *[FileNotFoundError("the token of the service account")] * 3)
    cluster.create()
    await asyncio.sleep(1.5)
    assert cluster.status()["phase"] == "Pending"
    assert "FileNotFoundError: the token of the service account" in cluster.status()["message"]
    await asyncio.sleep(5)
    assert cluster.api.read(f"{PODS}/t-1") is not None


async def test_the_api_server_is_asked_to_deny_unknown_fields(cluster: Cluster) -> None:
    unknown = 'strict decoding error: unknown field "spec.containers[0].comand"'
    cluster.api.fail("POST", ApiError(400, "BadRequest", unknown))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.api.queries_of("POST") == [{"fieldValidation": "Strict"}]
    assert unknown in cluster.status()["message"]


QUOTA = ApiError(403, "Forbidden", 'pods "t-1" is forbidden: exceeded quota: none, requested: pods=1')


async def test_a_denied_pod_is_reported_until_that_changes(cluster: Cluster) -> None:
    cluster.api.fail("POST", *[QUOTA] * 20)
    cluster.create()
    await asyncio.sleep(50)
    status = cluster.status()
    (scheduled,) = (one for one in status["conditions"] if one["type"] == "Scheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "QuotaExceeded")
    assert status["message"] == scheduled["message"]
    assert QUOTA.message in status["message"]
    assert (status["phase"], status["attempts"]) == ("Pending", 0)
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_tasks_postponed", cause="QuotaExceeded") == 1
    assert len(cluster.pods) < 10
    events = [body for path, body in cluster.api.calls_of("POST") if path.endswith("/events")]
    assert len([one for one in events if one["reason"] == "Postponed"]) <= 1


@pytest.mark.parametrize(
    ("hand", "old", "new"),
    [
        ("on_quota", Obstacle("lab", {"spec": {"hard": {"pods": "0"}}}), Obstacle("lab", {"spec": {}})),
        ("on_quota", Obstacle("lab", {}), None),
        ("on_namespace", Obstacle("lab", {"pod-security.kubernetes.io/enforce": "restricted"}), Obstacle("lab", {})),
    ],
)
async def test_a_denied_pod_is_retried_at_once_when_the_cause_may_have_gone(
    cluster: Cluster, hand: str, old: Obstacle, new: Obstacle | None
) -> None:
    cluster.api.fail("POST", *[QUOTA] * 100)
    cluster.create()
    await asyncio.sleep(300)
    cluster.api.recover("POST")
    getattr(cluster.controller, hand)(old, new)
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is not None


async def test_a_pod_that_was_created_though_the_answer_was_lost_is_not_created_again(cluster: Cluster) -> None:
    cluster.api.fail("POST", ApiUnreachableError("timeout"))
    cluster.create()
    await asyncio.sleep(0.1)
    item = cluster.api.store(f"{PODS}/t-1", **build_pod(read_task(task_object(), START_S)[0], 1, "perllm"))
    cluster.controller.on_pod(None, read_pod(item))
    await asyncio.sleep(200)
    assert cluster.pods == ["t-1"]


async def test_a_creation_that_hangs_is_reported_as_a_failed_webhook(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(path: str, body: Any, **query: str) -> None:
        await asyncio.sleep(30.0)
        raise ApiTimeoutError("no answer in time")

    monkeypatch.setattr(cluster.api, "post", hang)
    cluster.create()
    await asyncio.sleep(31.5)
    assert cluster.condition("Scheduled")["reason"] == "WebhookFailed"


async def test_room_is_not_kept_for_a_pod_that_kube_scheduler_cannot_place(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(0.1)
    assert len(cluster.parts.ledger) == 1
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    cluster.pod(status={"phase": "Pending", "conditions": [unschedulable]})
    assert len(cluster.parts.ledger) == 0


@pytest.mark.parametrize("error", [ApiUnreachableError("gone"), ApiError(403, "Forbidden", "exceeded quota")])
async def test_a_pod_that_could_not_be_created_is_retried(cluster: Cluster, error: ApiError) -> None:
    cluster.api.fail("POST", error, error)
    cluster.create()
    await asyncio.sleep(5)
    assert cluster.api.read(f"{PODS}/t-1") is not None
    assert set(cluster.pods) == {"t-1"}


async def test_a_namesake_of_a_deleted_task_has_nothing_to_do_with_its_pod(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    cluster.bind()
    cluster.delete()
    assert len(cluster.parts.ledger) == 0
    cluster.create(uid="uid-new")
    cluster.finish()
    await asyncio.sleep(1.5)
    assert cluster.status()["phase"] == "Pending"
    cluster.lose_pod()
    await asyncio.sleep(3)
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "uid-new"


async def test_a_request_is_that_of_the_pods_own_task(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    request = cluster.controller.request_of(pod)
    assert request is not None
    assert request.task_id == "uid-t"
    pod["metadata"]["ownerReferences"][0]["uid"] = "another"
    assert cluster.controller.request_of(pod) is None
    assert cluster.controller.request_of({"metadata": {"name": "x", "namespace": "lab"}}) is None


async def test_a_task_that_is_not_listed_was_deleted_unseen(cluster: Cluster) -> None:
    cluster.create("gone")
    cluster.create("kept")
    await asyncio.sleep(1)
    cluster.controller.on_list("elsewhere", {})
    assert cluster.parts.ledger.flight("uid-gone") is not None
    cluster.controller.on_list(None, {"lab/kept": "uid-kept"})
    assert cluster.parts.ledger.flight("uid-gone") is None
    assert cluster.parts.ledger.flight("uid-kept") is not None


async def test_a_task_that_perllm_fails_on_says_so_and_delays_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = lifecycle.advance

    def fail_on_one(task: Task, *rest: Any, **options: Any) -> lifecycle.Step:
        if task.name == "cursed":
            raise KeyError("no such thing")
        return advance(task, *rest, **options)

    monkeypatch.setattr(lifecycle, "advance", fail_on_one)
    cluster.create("cursed")
    cluster.create("other")
    await asyncio.sleep(1)
    cursed = cluster.api.read(names.task_path("lab", "cursed"))
    assert cursed is not None
    assert "KeyError: 'no such thing'" in cursed["status"]["message"]
    assert cluster.api.read(f"{PODS}/other-1") is not None
    monkeypatch.undo()
    await asyncio.sleep(10)
    assert cluster.api.read(f"{PODS}/cursed-1") is not None


def container(state: dict[str, Any], name: str = "llm") -> dict[str, Any]:
    return {"name": name, "state": state}


async def test_a_task_that_cannot_be_read_is_forgotten_when_it_is_deleted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(controller, "read_task", fail)
    cluster.create("cursed")
    await asyncio.sleep(0.1)
    assert cluster.guard.troubled == [("task", "lab/cursed")]
    cluster.delete("cursed")
    assert cluster.guard.troubled == []


async def test_a_pod_that_a_proxy_keeps_alive_is_ended_and_its_run_counts(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
    proxy = container({"running": {"startedAt": "1970-01-01T00:16:42Z"}}, "istio-proxy")
    containers = [{"name": "istio-proxy"}, {"name": "llm"}]
    statuses = [proxy, container({"terminated": ended})]
    cluster.pod(spec={"containers": containers}, status={"phase": "Running", "containerStatuses": statuses})
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is None
    cluster.report_gone("t-1", containers, statuses)
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(SETTLING_S + 1)
    status = cluster.status()
    assert (status["phase"], status["observed"]["latency"], status["observed"]["energyQuality"]) == (
        "Succeeded",
        10.5,
        "measured",
    )
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_a_pod_that_never_starts_is_replaced_after_the_start_timeout(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    creating = [container({"waiting": {"reason": "ContainerCreating"}})]
    cluster.pod(metadata={"creationTimestamp": format_time(1001)}, status={"phase": "Pending"})
    cluster.bind()
    cluster.pod(status={"containerStatuses": creating})
    await asyncio.sleep(PodPatience().start_s - 1)
    assert (cluster.pods, cluster.status()["phase"]) == (["t-1"], "Scheduled")
    await asyncio.sleep(3)
    assert cluster.api.read(f"{PODS}/t-1") is None
    assert "StartTimeout: no container started within 300 s" in cluster.condition("Scheduled")["message"]
    assert cluster.metric("perllm_pods_refused_total") == 1
    # There is no other node, so the task is held for a while before it is retried there.
    await asyncio.sleep(20)
    assert cluster.pods == ["t-1", "t-2"]


async def test_a_pod_that_can_never_start_ends_the_task_with_the_message_of_kubelet(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.pod(metadata={"creationTimestamp": format_time(1001)}, status={"phase": "Pending"})
    cluster.bind()
    wrong = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "key" not found'}}
    cluster.pod(status={"phase": "Pending", "containerStatuses": [container(wrong)]})
    await asyncio.sleep(1.1)
    words = 'CreateContainerConfigError: secret "key" not found'
    assert cluster.status()["message"] == f"the pod is starting: {words}"
    await asyncio.sleep(PodPatience().mistake_s + 1)
    assert (cluster.status()["phase"], cluster.status()["message"]) == ("Failed", f"pod t-1 failed: {words}")
    assert cluster.api.read(f"{PODS}/t-1") is None


async def test_a_task_that_is_being_deleted_gets_no_new_pod(cluster: Cluster) -> None:
    cluster.create(retries=3)
    await asyncio.sleep(1)
    cluster.bind()
    item = cluster.api.store(
        names.task_path("lab", "t"), metadata={"deletionTimestamp": "1970-01-01T00:16:41Z", "finalizers": ["x/y"]}
    )
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is None
    cluster.report_gone("t-1", [{"name": "llm"}], [])
    await asyncio.sleep(5)
    assert (cluster.pods, cluster.condition("Finished")["reason"]) == (["t-1"], "Deleted")


@pytest.mark.parametrize("skew_s", [-120, 120])
async def test_a_node_whose_clock_is_wrong_is_named_and_not_believed(cluster: Cluster, skew_s: int) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.pod(metadata={"creationTimestamp": "1970-01-01T00:16:42Z"}, status={"phase": "Pending"})
    cluster.bind()
    started = {"startedAt": format_time(1002 + skew_s)}
    cluster.pod(status={"phase": "Running", "containerStatuses": [container({"running": started})]})
    await asyncio.sleep(8)
    ended = {**started, "exitCode": 0, "finishedAt": format_time(1010 + skew_s)}
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": [container({"terminated": ended})]})
    await asyncio.sleep(SETTLING_S + 1)
    observed = cluster.status()["observed"]
    assert (observed["latency"], observed["energyQuality"]) == (10.0, "coarse")
    assert abs(cluster.metric("perllm_node_clock_skew_seconds", node="n") - skew_s) <= 1
    summary = cluster.parts.learner.summaries("n")["m"]
    assert (summary.count, summary.latency_s) == (1, 10.0)


async def test_a_forged_record_teaches_nothing_and_is_counted(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind(model="somebody-elses")
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 31)
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.parts.learner.summaries("n") == {}
    assert cluster.metric("perllm_outcomes_refused_total", reason="decision") == 1


async def test_a_record_that_is_changed_while_the_task_runs_changes_nothing(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(metadata={"annotations": {names.DECISION_ANNOTATION: "forged"}})
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(8.5)
    cluster.finish()
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(SETTLING_S + 1)
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_an_impossible_outcome_teaches_nothing_and_is_counted_once(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
    said = {**ended, "message": '{"outputTokens": 0, "text": "Blue."}'}
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": [container({"terminated": said})]})
    await asyncio.sleep(SETTLING_S + 5)
    assert cluster.parts.learner.summaries("n") == {}
    assert cluster.metric("perllm_outcomes_refused_total", reason="tokens") == 1


async def test_a_task_is_handled_although_perllm_fails_on_the_first_sight_of_its_pod(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(2)
    cluster.bind()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    restarted.see_pod()
    confirm, failures = restarted.scheduler.confirm, [ValueError("odd record")]

    def fail_once(decision: Decision, slots: float, resource: str) -> None:
        if failures:
            raise failures.pop()
        confirm(decision, slots, resource)

    monkeypatch.setattr(restarted.scheduler, "confirm", fail_once)
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted.controller.on_task(item, deleted=False)
    await asyncio.sleep(5)
    assert len(restarted.parts.ledger) == 1
    await asyncio.sleep(30)
    assert restarted.status()["phase"] == "Failed"
    restarted.stop()


async def test_a_deleted_task_that_perllm_fails_on_is_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(controller, "read_task", fail)
    cluster.create()
    await asyncio.sleep(1.5)
    assert "KeyError" in cluster.status()["message"]
    cluster.delete()
    faults = cluster.metric("perllm_faults_total", kind="task")
    await asyncio.sleep(300)
    assert cluster.metric("perllm_faults_total", kind="task") == faults
    monkeypatch.undo()
    cluster.create()
    await asyncio.sleep(PROGRESS_DELAY_S + 0.1)
    assert cluster.status()["phase"] == "Pending"


async def test_progress_is_written_once_unless_there_is_something_to_explain(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(1)
    cluster.pod(status={"phase": "Running", "containerStatuses": [container({"running": {}})]})
    await asyncio.sleep(PROGRESS_DELAY_S)
    statuses = [patch[-1]["value"] for path, patch in cluster.api.calls_of("PATCH") if path.endswith("/status")]
    assert [status["phase"] for status in statuses] == ["Running"]


async def test_the_more_tasks_have_progress_to_write_the_longer_it_waits(cluster: Cluster) -> None:
    def count_written() -> int:
        return len({path for path, _ in cluster.api.calls_of("PATCH") if path.endswith("/status")})

    for number in range(60):
        cluster.create(f"t{number}")
    await asyncio.sleep(PROGRESS_DELAY_S + 1.0)
    assert 30 <= count_written() <= 45
    await asyncio.sleep(2.1)
    assert count_written() == 60


async def test_an_earlier_pod_that_goes_later_does_not_hide_the_one_that_succeeded(cluster: Cluster) -> None:
    cluster.create(retries=1)
    await asyncio.sleep(1)
    cluster.bind()
    cluster.finish(exit_code=3)
    await asyncio.sleep(1)
    cluster.bind("t-2")
    await asyncio.sleep(8.5)
    cluster.finish("t-2")
    for name in ("t-2", "t-1"):
        cluster.lose_pod(name)
    await asyncio.sleep(SETTLING_S + 1)
    assert cluster.status()["observed"]["energyQuality"] != "missing"
    assert cluster.parts.learner.summaries("n")["m"].count == 1


@pytest.mark.parametrize("calls", range(1, 8))
async def test_a_deadline_that_passes_while_a_task_is_reconciled_is_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(29.0005)
    before = iter([START_S + 29.9995] * calls)
    monkeypatch.setattr(cluster.controller, "_unix_now", lambda: next(before, cluster.now_s()))
    cluster.pod(metadata={"labels": {"touched": "yes"}})
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Failed"


async def test_a_template_that_is_denied_when_its_task_has_ended_changes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deny_late(*_: Any, **__: Any) -> None:
        await asyncio.sleep(20)
        raise ApiError(422, "Invalid", "spec.containers[0].image: Required value")

    monkeypatch.setattr(cluster.api, "post", deny_late)
    cluster.create(onDeadlineMissed="Terminate", deadline="10s")
    await asyncio.sleep(30)
    assert (cluster.status()["phase"], cluster.condition("Finished")["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_rejection_that_fails_halfway_is_still_written(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, failures = Announcer.ended, [ValueError("cannot be announced")]

    def fail_once(announcer: Announcer, task: Task, status: TaskStatus) -> None:
        if failures:
            raise failures.pop()
        ended(announcer, task, status)

    monkeypatch.setattr(Announcer, "ended", fail_once)
    cluster.create(onInfeasible="Reject", tiers=["cloud"])
    await asyncio.sleep(5)
    assert cluster.status()["phase"] == "Rejected"
    assert cluster.status()["message"].startswith("no node satisfies")
    assert cluster.condition("Scheduled")["reason"] == "Infeasible"
