"""Annotated pods in virtual time: kube-scheduler asks, binds; they run and end. Every node draws 100 W."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any, Protocol

import pytest
from prometheus_client import CollectorRegistry

from perllm.annotated.annotated_pod import NO_DEADLINE_S
from perllm.annotated.outcomes import PodOutcomes
from perllm.annotated.pods import UNSEEN_FOR_S, AnnotatedPods, SeenPod
from perllm.annotated.report import PodReport
from perllm.api import names
from perllm.cluster.devices import read_claim
from perllm.cluster.events import EventRecorder
from perllm.cluster.node import Node
from perllm.cluster.times import format_time
from perllm.controller.clocks import Clocks
from perllm.controller.decisions import Decisions
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.reviews import Reviews
from perllm.costs.service import Expense
from perllm.energy.bill import BillMetrics
from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.extender.protocol import Unplaceable
from perllm.extender.retries import Retries
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.learning.outcome import Outcome
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.placement.claims import ClaimSizes
from perllm.placement.counterfactual import Savings
from perllm.placement.rehearsal import OtherScheduler
from perllm.placement.request import PlacementRequest
from perllm.placement.savings import SavedUnit
from unit.annotated.pods import pod_object
from unit.cluster.device_objects import DRIVER, GPUS, claim_object, request
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes
from unit.energy.settlements import make_settlement
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK, make_scheduler

pytestmark = pytest.mark.looptime

START_S = 1000.0
NAMES = ["a", "b"]
PARTS = ("queue", "transfer", "inference", "other")


class Cluster:
    """What an operator follows of a cluster; `records` are the annotations that bindings have left on pods."""

    def __init__(self, *nodes: Node, annotates: bool = False, namespaces: tuple[str, ...] = ()) -> None:
        self._begun_s = asyncio.get_running_loop().time()
        self.nodes = nodes or (make_node("a", slots=1), make_node("b", slots=1))
        self.api, self.records, self.claims = FakeApiServer(), dict[str, str](), ClaimSizes([GPUS])
        self.annotates, self.namespaces = annotates, namespaces
        self.charged: list[tuple[str, str, float, float]] = []
        self.writes = make_writes()
        self._writing = asyncio.create_task(self.writes.run())
        self.start()

    def start(self) -> None:
        """Start an operator that knows nothing of an earlier one."""
        made = make_scheduler(*self.nodes, now_s=self.now_s, other=OtherScheduler.KUBE_SCHEDULER)
        self.scheduler, self.parts, self.registry = made.scheduler, made.parts, CollectorRegistry()
        metrics, guard = OperatorMetrics(self.registry), Guard(lambda _: None, Random(0))
        self.settlement = make_settlement(EnergyHistory([self._build_meter()], absent_after_s=60.0), self.now_s)
        self.decisions, self.savings = Decisions(), Savings(is_shadow=False)
        self.retries = Retries(
            self.api,  # type: ignore[arg-type]
            self.writes,
            has_room=lambda request: self.scheduler.consider(request).node is not None,
            guard=guard,
            now_s=self.now_s,
            unix_now=self.now_s,
        )
        events = EventRecorder(self.api, self.writes, instance="test", unix_now=self.now_s)  # type: ignore[arg-type]
        self.pods = AnnotatedPods(
            self.scheduler,
            self.parts.fleet,
            self.parts.learner,
            settlement=self.settlement,
            outcomes=PodOutcomes(self.scheduler, metrics, self.savings, reviews=Reviews(self.scheduler, guard)),
            node_health=NodeHealth(
                self.scheduler,
                self.parts.circuits,
                metrics,
                show=lambda *_: None,
                now_s=self.now_s,
                unix_now=self.now_s,
            ),
            clocks=Clocks(self.parts.fleet.nodes.__contains__, lambda *_: None),
            decisions=self.decisions,
            retries=self.retries,
            report=PodReport(
                events,
                metrics,
                EndMetrics(self.registry),
                BillMetrics(self.registry),
                self.api,  # type: ignore[arg-type]
                self.writes,
                annotates=self.annotates,
                charge=self._charge,
            ),
            guard=guard,
            unix_now=self.now_s,
            gpu_resources=("nvidia.com/gpu",),
            claims=self.claims,
            namespaces=self.namespaces,
        )
        self._known: dict[str, SeenPod] = {}

    def _charge(self, namespace: str, node: str, at_s: float, energy_j: float) -> Expense:
        self.charged.append((namespace, node, at_s, energy_j))
        return Expense()

    def _build_meter(self) -> Meter:
        meter = Meter.build("dcgm", "gpu", 2000.0, length_s=900.0)
        for node in self.nodes:
            meter.counters.merge(node.name, "gpu", [(time_s, 100.0 * time_s) for time_s in range(1000, 1120)], 1120.0)
        return meter

    def now_s(self) -> float:
        return START_S + asyncio.get_running_loop().time() - self._begun_s

    def stop(self) -> None:
        self._writing.cancel()

    def show(self, name: str, *, restart_policy: str = "Never", restarts: int = 0, **fields: Any) -> dict[str, Any]:
        """Show a pod to the operator as the API server has it by now."""
        record = {names.DECISION_ANNOTATION: self.records[name]} if name in self.records else {}
        item = pod_object(name, **{"created_s": START_S, **fields})
        item["metadata"]["annotations"] = {**item["metadata"]["annotations"], **record}
        item["spec"]["restartPolicy"] = restart_policy
        for status in item["status"]["containerStatuses"]:
            status["restartCount"] = restarts
        self.api.store(f"/api/v1/namespaces/lab/pods/{name}", **item)
        old, new = self._known.get(name), self.pods.read(item)
        assert new is not None
        self._known[name] = new
        self.pods.on_pod(old, new)
        return item

    def remove(self, name: str) -> None:
        self.pods.on_pod(self._known.pop(name), None)

    def bind(self, name: str, **fields: Any) -> str:
        """Have kube-scheduler place a pod where PerLLM would; return the node."""
        asked = self.pods.request_of(self.show(name, **fields))
        assert isinstance(asked, PlacementRequest)
        node = self.scheduler.decide(asked, NAMES).node
        assert node is not None
        decision = self.scheduler.settle(asked.task_id, node)
        assert decision is not None
        self.records[name] = decision.to_record()
        self.decisions.note_bound(f"uid-{name}", node, self.records[name])
        self.scheduler.confirm(decision, asked.demand.slots, asked.demand.resource)
        self.show(name, node=node, **fields)
        return node

    async def run_pod(self, name: str = "p", **fields: Any) -> str:
        """Have a pod placed, run for 8 s, and its energy settled."""
        created_s = self.now_s()
        fields = {"created_s": created_s, **fields}
        node = self.bind(name, **fields)
        await asyncio.sleep(1.0)
        self.show(name, node=node, started_s=created_s + 1, **fields)
        await asyncio.sleep(8.0)
        self.show(name, node=node, started_s=created_s + 1, finished_s=created_s + 9, **fields)
        await asyncio.sleep(5.0)
        return node

    @property
    def events(self) -> list[tuple[str, str]]:
        """Name of the pod and reason of every event."""
        sent = [body for path, body in self.api.calls_of("POST") if path.endswith("/events")]
        assert {one["regarding"]["kind"] for one in sent} <= {"Pod"}
        return [(one["regarding"]["name"], one["reason"]) for one in sent]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def total(self, name: str) -> float:
        """Return the sum of a metric over all labels."""
        samples = [sample for family in self.registry.collect() for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name)

    def slots_of(self, uid: str) -> float:
        flight = self.parts.ledger.flight(uid)
        return 0.0 if flight is None else flight.slots

    @property
    def learner(self) -> Learner:
        return self.parts.learner


class MakeCluster(Protocol):
    def __call__(self, *nodes: Node, annotates: bool = False, namespaces: tuple[str, ...] = ()) -> Cluster: ...


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Return what makes a cluster in the time of the test."""
    made: list[Cluster] = []

    def make(*nodes: Node, annotates: bool = False, namespaces: tuple[str, ...] = ()) -> Cluster:
        made.append(Cluster(*nodes, annotates=annotates, namespaces=namespaces))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


async def test_a_pod_is_announced_counted_measured_and_learned_from(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = await cluster.run_pod()
    assert cluster.events == [("p", "Placed"), ("p", "Completed")]
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_outcomes_learned_total") == 1
    assert cluster.metric("perllm_deadlines_total", tier="edge", met="true") == 1
    assert cluster.metric("perllm_bill_tasks_total", by="namespace", payer="lab", phase="Succeeded") == 1
    assert cluster.learner.summaries(node)
    assert cluster.savings.of(SavedUnit.DEADLINES).tasks == 1
    note = cluster.api.calls_of("POST")[-1][1]["note"]
    assert note.startswith("took 9.00 s of 60 s since its creation, and 600 J (measured), on ")


async def test_a_pod_counts_like_a_task_in_what_reports_are_made_from(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = await cluster.run_pod()
    gpu = cluster.parts.fleet.nodes[node].gpu_type
    assert cluster.metric("perllm_node_tasks_total", node=node, tier="edge", gpu=gpu, met="true") == 1
    seconds = {part: cluster.metric("perllm_node_task_seconds_total", node=node, part=part) for part in PARTS}
    assert seconds == {"queue": 1.0, "transfer": 0.0, "inference": 6.0, "other": 2.0}
    assert cluster.total("perllm_promises_total") == 1
    assert cluster.total("perllm_deadlines_missed_total") == 0


async def test_a_late_pod_counts_as_a_missed_deadline(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod(annotations={names.MODEL_ANNOTATION: "m", names.DEADLINE_ANNOTATION: "5s"})
    assert cluster.metric("perllm_deadlines_missed_total", phase="Succeeded", reason="Late") == 1


async def test_nothing_was_promised_to_a_pod_without_a_deadline(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod(annotations={names.MODEL_ANNOTATION: "m"})
    assert [cluster.total(f"perllm_{what}_total") for what in ("promises", "deadlines_missed", "node_tasks")] == [
        0,
        0,
        1,
    ]


async def test_the_energy_of_a_pod_is_charged_by_the_tariff_in_the_middle_of_its_inference(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    node = await cluster.run_pod()
    assert cluster.charged == [("lab", node, START_S + 9.0 - 3.0, pytest.approx(600.0))]


async def test_nodes_that_were_excluded_for_a_pod_are_counted(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.bind("p")
    cluster.bind("q")
    assert cluster.metric("perllm_nodes_excluded_total", reason="compute") == 1


async def test_a_pod_without_a_deadline_is_neither_late_nor_in_time(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod(annotations={names.MODEL_ANNOTATION: "m"})
    assert cluster.events == [("p", "Placed"), ("p", "Completed")]
    assert [cluster.metric("perllm_deadlines_total", tier="edge", met=met) for met in ("true", "false")] == [0, 0]


async def test_a_late_pod_is_announced_as_such(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod(annotations={names.MODEL_ANNOTATION: "m", names.DEADLINE_ANNOTATION: "5s"})
    assert cluster.events == [("p", "Placed"), ("p", "DeadlineMissed")]


async def test_without_a_deadline_a_pod_goes_where_it_takes_the_least_energy(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(make_node("a", gpu_type="NVIDIA-A100-SXM4-80GB"), make_node("b", gpu_type="Tesla-T4"))
    request = cluster.pods.request_of(cluster.show("p", annotations={names.MODEL_ANNOTATION: "m"}))
    assert not isinstance(request, Unplaceable | None)
    placement = cluster.scheduler.decide(request, NAMES)
    assert request.deadline_s == NO_DEADLINE_S
    assert placement.arm == placement.arms.energy_j.argmin()


async def test_what_it_took_is_written_to_the_pod_if_configured(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(annotates=True)
    await cluster.run_pod()
    pod = cluster.api.read("/api/v1/namespaces/lab/pods/p")
    assert pod is not None
    written = {key: pod["metadata"]["annotations"].get(key) for key in names.RESULT_ANNOTATIONS}
    assert written == {
        names.LATENCY_ANNOTATION: "9.000",
        names.ENERGY_ANNOTATION: "600.00",
        names.ENERGY_QUALITY_ANNOTATION: "measured",
        names.DEADLINE_MET_ANNOTATION: "true",
    }


async def test_nothing_is_written_to_a_pod_otherwise(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod()
    assert cluster.api.calls_of("PATCH") == []


async def test_a_failed_pod_is_announced_and_makes_room(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    failed = pod_object("p", node=node, started_s=START_S)
    failed["metadata"]["annotations"][names.DECISION_ANNOTATION] = cluster.records["p"]
    failed["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "llm", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
    }
    cluster.pods.on_pod(cluster.pods.read(failed), cluster.pods.read(failed))
    await asyncio.sleep(5.0)
    assert cluster.events == [("p", "Placed"), ("p", "Failed")]
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_outcomes_learned_total") == 0


async def test_a_pod_that_its_node_refuses_is_announced_and_counted(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    refused = pod_object("p", node=node)
    refused["metadata"]["annotations"][names.DECISION_ANNOTATION] = cluster.records["p"]
    refused["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "GPU is lost"}
    cluster.pods.on_pod(cluster.pods.read(refused), cluster.pods.read(refused))
    await asyncio.sleep(0.1)
    assert cluster.events == [("p", "Placed"), ("p", "Failed")]
    assert cluster.api.calls_of("POST")[-1][1]["note"].startswith(f"pod p was refused or lost by node {node}")
    assert cluster.metric("perllm_pods_refused_total") == 1


async def test_a_pod_that_ends_since_it_is_deleted_is_no_failure(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    deletion = {"deletionTimestamp": format_time(START_S + 30), "deletionGracePeriodSeconds": 30}
    stopped = pod_object("p", node=node, started_s=START_S, **deletion)
    stopped["metadata"]["annotations"][names.DECISION_ANNOTATION] = cluster.records["p"]
    ended = {"exitCode": 143, "finishedAt": format_time(START_S + 1)}
    stopped["status"] = {"phase": "Failed", "containerStatuses": [{"name": "llm", "state": {"terminated": ended}}]}
    cluster.pods.on_pod(cluster.pods.read(stopped), cluster.pods.read(stopped))
    await asyncio.sleep(5.0)
    assert cluster.events == [("p", "Placed")]
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_pods_refused_total") == 0


async def test_a_gated_pod_arrives_once_kube_scheduler_may_place_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    arrived: list[str] = []
    cluster.scheduler.note_arrival = lambda request: arrived.append(request.task_id)  # type: ignore[method-assign]
    item = pod_object("p")
    gated = {**item, "spec": {**item["spec"], "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}}
    cluster.pods.on_pod(None, cluster.pods.read(gated))
    assert arrived == []
    cluster.pods.on_pod(cluster.pods.read(gated), cluster.pods.read(item))
    assert arrived == ["uid-p"]


async def test_a_deleted_pod_makes_room_and_is_not_learned_from(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    cluster.show("p", node=node, started_s=START_S)
    cluster.remove("p")
    await asyncio.sleep(5.0)
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_outcomes_learned_total") == 0
    assert not cluster.pods.is_in_flight("uid-p")


async def test_a_pod_that_is_deleted_while_kube_scheduler_asks_about_it_is_forgotten(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    gone = cluster.show("gone")
    cluster.remove("gone")
    cluster.pods.request_of(gone)
    cluster.decisions.note_bound("uid-gone", "a", "record")
    await asyncio.sleep(UNSEEN_FOR_S - 1)
    cluster.pods.request_of(cluster.show("p"))
    assert cluster.scheduler.find_counterfactual("uid-gone") is not None
    await asyncio.sleep(1.0)
    cluster.pods.request_of(cluster.show("p"))
    assert cluster.scheduler.find_counterfactual("uid-gone") is None
    assert cluster.pods.is_in_flight("uid-p")
    seen = cluster.pods.read(pod_object("gone", node="a"))
    assert seen is not None
    assert not cluster.decisions.has_bound(seen.pod)


async def test_a_pod_with_a_restarted_container_is_announced_but_not_learned_from(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.run_pod(restarts=1)
    assert cluster.events == [("p", "Placed"), ("p", "Completed")]
    assert cluster.metric("perllm_outcomes_learned_total") == 0


async def test_a_lasting_pod_is_present_while_it_exists_and_is_not_learned_from(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    node = cluster.bind("server", restart_policy="Always")
    cluster.show("server", node=node, started_s=START_S, restart_policy="Always")
    await asyncio.sleep(60.0)
    assert cluster.events == [("server", "Placed")]
    assert len(cluster.parts.ledger) == 1
    assert cluster.settlement.find_begun_s(node) == float("inf")
    cluster.show("server", node=node, started_s=START_S, finished_s=START_S + 60, restart_policy="Always")
    await asyncio.sleep(5.0)
    assert cluster.events == [("server", "Placed")]
    assert len(cluster.parts.ledger) == 0
    assert not cluster.learner.summaries(node)


async def test_a_pod_that_others_placed_counts_as_present_but_is_not_learned_from(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.show("p", node="a", started_s=START_S)
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(8.0)
    cluster.show("p", node="a", started_s=START_S, finished_s=START_S + 8)
    await asyncio.sleep(5.0)
    assert (len(cluster.parts.ledger), cluster.events) == (0, [])
    assert not cluster.learner.summaries("a")


async def test_a_record_that_someone_else_wrote_is_not_believed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.bind("p")
    cluster.records["q"] = cluster.records["p"]
    cluster.show("q", node="b", started_s=START_S)
    cluster.show("q", node="b", started_s=START_S, finished_s=START_S + 8)
    await asyncio.sleep(5.0)
    assert ("q", "Completed") not in cluster.events


def claiming(name: str, **fields: Any) -> dict[str, Any]:
    """Return a pod that asks for devices by the template `two`, from which the claim `two-x` was made."""
    item = pod_object(name, **fields)
    item["spec"]["containers"] = [{"name": "llm"}]
    item["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "two"}]
    item["status"]["resourceClaimStatuses"] = [{"name": "gpu", "resourceClaimName": "two-x"}]
    return item


async def test_a_pod_takes_a_slot_for_each_device_that_it_claims(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.claims.put(read_claim(claim_object("two-x", request(2))))
    asked = cluster.pods.request_of(claiming("p"))
    assert isinstance(asked, PlacementRequest)
    assert (asked.demand.resource, asked.demand.slots) == (DRIVER, 2.0)
    cluster.pods.on_pod(None, cluster.pods.read(claiming("p", node="a", started_s=START_S)))
    assert cluster.slots_of("uid-p") == 2.0


async def test_a_claim_that_becomes_known_after_its_pod_has_a_node_counts_from_then(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    early = cluster.pods.read(claiming("p", node="a"))
    cluster.pods.on_pod(None, early)
    assert cluster.slots_of("uid-p") == 1.0
    cluster.claims.put(read_claim(claim_object("two-x", request(2))))
    cluster.pods.on_pod(early, cluster.pods.read(claiming("p", node="a", started_s=START_S)))
    assert cluster.slots_of("uid-p") == 2.0


async def test_after_a_restart_a_running_pod_is_counted_and_learned_from_at_its_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    cluster.show("p", node=node, started_s=START_S)
    await asyncio.sleep(1.0)
    cluster.start()
    cluster.show("p", node=node, started_s=START_S)
    assert list(cluster.parts.ledger.confirmed) == ["uid-p"]
    await asyncio.sleep(8.0)
    cluster.show("p", node=node, started_s=START_S, finished_s=START_S + 9)
    await asyncio.sleep(5.0)
    assert cluster.events == [("p", "Placed"), ("p", "Completed")]
    assert cluster.metric("perllm_outcomes_learned_total") == 1


async def test_after_a_restart_a_finished_pod_is_learned_from_unless_it_was_before(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    await asyncio.sleep(9.0)
    ended: dict[str, Any] = {"node": node, "started_s": START_S, "finished_s": START_S + 8}
    for _ in range(2):
        cluster.start()
        cluster.show("p", **ended)
        await asyncio.sleep(5.0)
        assert cluster.metric("perllm_outcomes_learned_total") == 1
    cluster.start()
    cluster.learner.recent(node).add("uid-p", START_S + 8)
    before = len(cluster.events)
    cluster.show("p", **ended)
    await asyncio.sleep(5.0)
    assert cluster.metric("perllm_outcomes_learned_total") == 0
    assert len(cluster.events) == before


async def test_after_a_restart_a_finished_pod_that_teaches_nothing_is_not_announced_and_billed_again(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    cluster.show("p", node=node, started_s=START_S)
    await asyncio.sleep(9.0)
    for _ in range(3):
        # Its inference took longer than its run.
        cluster.show("p", node=node, started_s=START_S, finished_s=START_S + 2)
        await asyncio.sleep(5.0)
        assert cluster.events == [("p", "Placed"), ("p", "Completed")]
        cluster.start()
    assert cluster.metric("perllm_bill_tasks_total", by="namespace", payer="lab", phase="Succeeded") == 0


@pytest.mark.parametrize("annotations", [{names.MODEL_ANNOTATION: "m"}, {}], ids=["readable", "unreadable"])
async def test_after_a_restart_a_pod_that_waits_is_remembered_for_a_retry(
    make_cluster: MakeCluster, annotations: dict[str, str]
) -> None:
    cluster = make_cluster()
    item = pod_object("p", annotations=annotations)
    item["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    cluster.pods.on_pod(None, cluster.pods.read(item))
    assert "uid-p" in cluster.retries


async def test_a_pod_is_retried_when_its_annotations_change(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    item = cluster.show("p", annotations={names.MODEL_ANNOTATION: "m", names.DEADLINE_ANNOTATION: "soon"})
    problem = cluster.pods.request_of(item)
    assert isinstance(problem, Unplaceable)
    assert problem.reason.startswith("annotation perllm.io/deadline: ")
    cluster.retries.note_rejected("uid-p", "lab/p", None)
    cluster.show("p", annotations={names.MODEL_ANNOTATION: "m", names.DEADLINE_ANNOTATION: "10s"})
    await asyncio.sleep(0.1)
    assert [path for path, _ in cluster.api.calls_of("PATCH")] == ["/api/v1/namespaces/lab/pods/p/status"]


async def test_a_pod_whose_annotations_break_while_it_runs_still_makes_room(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node = cluster.bind("p")
    cluster.show("p", node=node, started_s=START_S)
    await asyncio.sleep(8.0)
    cluster.show("p", node=node, started_s=START_S, finished_s=START_S + 8, annotations={})
    await asyncio.sleep(5.0)
    assert len(cluster.parts.ledger) == 0
    assert cluster.events[-1] == ("p", "Completed")


async def test_a_pod_in_a_namespace_that_is_not_served_may_go_nowhere(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(namespaces=("team",))
    why = "namespace lab is not one of config.namespaces"
    assert cluster.pods.request_of(pod_object("p")) == Unplaceable(why, is_watched=False)


async def test_a_pod_with_the_label_of_tasks_may_go_nowhere_since_its_end_would_not_be_seen(
    make_cluster: MakeCluster,
) -> None:
    asked = make_cluster().pods.request_of(pod_object("p", labels={names.TASK_LABEL: "t"}))
    assert asked == Unplaceable("label perllm.io/task is for pods of tasks: remove it", is_watched=False)


async def test_a_task_of_the_same_name_is_not_withdrawn_when_a_pod_is_gone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    forgotten: list[str] = []
    cluster.scheduler.forget = lambda key, _: forgotten.append(key)  # type: ignore[method-assign]
    cluster.show("p")
    cluster.remove("p")
    assert forgotten == ["uid-p"]


async def test_an_outcome_that_cannot_be_learned_is_learned_later_though_another_pod_has_the_name(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster()
    learn, begun_s = cluster.scheduler.learn, cluster.now_s()

    def fail_for_a_while(outcome: Outcome, gpu_type: str) -> float | None:
        if outcome.run.task_id == "uid-p" and cluster.now_s() < begun_s + 60.0:
            raise KeyError("no such law")
        return learn(outcome, gpu_type)

    monkeypatch.setattr(cluster.scheduler, "learn", fail_for_a_while)
    await cluster.run_pod("p")
    cluster.remove("p")
    await cluster.run_pod("p", uid="another")
    assert cluster.metric("perllm_outcomes_learned_total") == 1
    await asyncio.sleep(120.0)
    assert cluster.metric("perllm_outcomes_learned_total") == 2
    assert cluster.scheduler.find_counterfactual("uid-p") is None


async def test_a_pod_whose_savings_cannot_be_found_is_learned_from(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster()

    def fail(*_: Any) -> None:
        raise KeyError("no such task")

    monkeypatch.setattr(cluster.scheduler, "review", fail)
    await cluster.run_pod("p")
    assert cluster.metric("perllm_outcomes_learned_total") == 1


async def test_a_pod_that_the_watch_has_not_shown_is_left_to_the_comparison_with_the_ledger(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    gone = cluster.show("p")
    cluster.remove("p")
    cluster.pods.request_of(gone)
    assert not cluster.pods.is_in_flight("uid-p")
    cluster.show("p")
    assert cluster.pods.is_in_flight("uid-p")


async def test_a_pod_whose_node_leaves_before_its_binding_is_seen_makes_room_at_its_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    asked = cluster.pods.request_of(cluster.show("p"))
    assert isinstance(asked, PlacementRequest)
    cluster.scheduler.decide(asked, ["a"])
    decision = cluster.scheduler.settle("uid-p", "a")
    assert decision is not None
    cluster.scheduler.confirm(decision, 1.0)
    cluster.scheduler.remove_node("a")
    cluster.show("p", node="a", started_s=START_S, finished_s=START_S + 8)
    assert len(cluster.parts.ledger) == 0


async def test_a_pod_whose_node_joins_after_it_was_seen_takes_its_slot(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.show("server", node="late", started_s=START_S, restart_policy="Always")
    cluster.scheduler.put_node(make_node("late", slots=1), UPLINK)
    cluster.pods.count_late()
    assert cluster.slots_of("uid-server") == 1.0
