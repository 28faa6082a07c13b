"""Shadow mode in virtual time: pods come, are placed by another scheduler, run and end; what is said about them?"""

import asyncio
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.cluster.node import Node
from perllm.controller.clocks import Clocks
from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.placement.counterfactual import Savings
from perllm.placement.rehearsal import OtherScheduler, Rehearsal
from perllm.placement.savings import SavedUnit
from perllm.settings.operation import ShadowSettings
from perllm.shadow.observer import ShadowObserver
from perllm.shadow.report import ShadowReport
from perllm.shadow.selection import read_shadowed_pod
from unit.annotated.pods import REPORT, pod_object
from unit.energy.settlements import make_settlement
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK, make_scheduler

pytestmark = pytest.mark.looptime

START_S = 1000.0


class Watched:
    """A shadow operator's observer, and what it sees of a cluster; every node draws 100 W."""

    def __init__(self, *nodes: Node) -> None:
        self._begun_s = asyncio.get_running_loop().time()
        made = make_scheduler(*nodes, now_s=self.now_s, other=OtherScheduler.PERLLM)
        self.scheduler = made.scheduler
        self.parts, self.registry = made.parts, CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        meter = Meter.build("dcgm", "gpu", 2000.0, length_s=900.0)
        for node in nodes:
            meter.counters.merge(node.name, "gpu", [(time_s, 100.0 * time_s) for time_s in range(1000, 1060)], 1060.0)
        self.savings = Savings(is_shadow=True)
        self.guard = Guard(lambda _: None, Random(0))
        self._known: dict[str, AnnotatedPod] = {}
        health = NodeHealth(
            made.scheduler, made.parts.circuits, metrics, show=lambda *_: None, now_s=self.now_s, unix_now=self.now_s
        )
        self.observer = ShadowObserver(
            made.scheduler,
            made.parts.fleet,
            settlement=make_settlement(EnergyHistory([meter], absent_after_s=60.0), self.now_s),
            savings=self.savings,
            node_health=health,
            clocks=Clocks(made.parts.fleet.nodes.__contains__, lambda *_: None),
            report=ShadowReport(metrics),
            guard=self.guard,
            unix_now=self.now_s,
        )

    def now_s(self) -> float:
        return START_S + asyncio.get_running_loop().time() - self._begun_s

    def show(self, item: dict[str, Any]) -> None:
        name, old = item["metadata"]["name"], self._known.get(item["metadata"]["name"])
        new = read_shadowed_pod(item, ShadowSettings(), "nvidia.com/gpu")
        assert new is not None
        self._known[name] = new
        self.observer.on_pod(old, new)

    def remove(self, name: str) -> None:
        self.observer.on_pod(self._known.pop(name), None)

    def count(self, choice: str) -> float:
        return self.registry.get_sample_value("perllm_shadowed_pods_total", {"choice": choice}) or 0.0

    async def show_run(self, policy: str, restarts: int, report: str) -> None:
        """Have pod p with this policy run for 8 s on the only node, and report that, after so many restarts."""
        created_s, times = self.now_s(), dict[str, float]()
        for key, after_s in ((None, 1.0), ("started_s", 8.0), ("finished_s", 5.0)):
            if key is not None:
                times[key] = self.now_s()
            item = pod_object(created_s=created_s, node="only" if times else None, **times)
            item["spec"]["restartPolicy"] = policy
            for status in item["status"]["containerStatuses"]:
                status["restartCount"] = restarts
                status["state"].get("terminated", {})["message"] = report
            self.show(item)
            await asyncio.sleep(after_s)

    async def run_pod(self, name: str, node: str | None) -> None:
        """Have a pod placed, run for 8 s, and its energy settled; None is a node that PerLLM would not choose."""
        created_s = self.now_s()
        self.show(pod_object(name, created_s=created_s))
        choice = self.scheduler.find_counterfactual(f"uid-{name}")
        node = node or next(other for other in self.parts.fleet.nodes if choice and other != choice.node)
        self.show(pod_object(name, created_s=created_s, node=node))
        await asyncio.sleep(1.0)
        self.show(pod_object(name, created_s=created_s, node=node, started_s=created_s + 1))
        await asyncio.sleep(8.0)
        self.show(pod_object(name, created_s=created_s, node=node, started_s=created_s + 1, finished_s=created_s + 9))
        await asyncio.sleep(5.0)


async def test_a_pod_on_the_node_that_perllm_would_have_chosen_saves_nothing_and_is_learned_from() -> None:
    watched = Watched(make_node("only"))
    await watched.run_pod("p", "only")
    assert watched.count("same") == 1
    assert watched.savings.of(SavedUnit.JOULES).total == 0.0
    assert (watched.savings.of(SavedUnit.JOULES).tasks, watched.savings.of(SavedUnit.DEADLINES).tasks) == (1, 1)
    assert watched.parts.learner.summaries("only")


async def test_the_rehearsed_answer_is_as_long_as_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, known = Watched(make_node("only")), list[tuple[str, float]]()
    monkeypatch.setattr(Rehearsal, "note_end", lambda _, *end: known.append(end))
    await watched.run_pod("p", "only")
    assert known == [("uid-p", 100.0)]


async def test_a_pod_on_another_node_is_compared_with_what_was_expected_on_perllms_choice() -> None:
    watched = Watched(make_node("a"), make_node("b", gpu_type="NVIDIA-A100-SXM4-80GB"))
    await watched.run_pod("p", None)
    assert watched.count("other") == 1
    assert watched.savings.of(SavedUnit.DEADLINES).tasks == 1
    assert watched.savings.of(SavedUnit.JOULES).total != 0.0


async def test_real_pods_are_work_of_their_nodes_until_they_end() -> None:
    watched = Watched(make_node("only"))
    watched.show(pod_object("p", created_s=START_S, node="only", started_s=START_S))
    assert len(watched.parts.ledger) == 1
    watched.remove("p")
    assert len(watched.parts.ledger) == 0


async def test_a_pod_that_ran_before_it_was_seen_is_work_but_nothing_is_learned_or_compared() -> None:
    watched = Watched(make_node("only"))
    await asyncio.sleep(20.0)
    watched.show(pod_object("p", created_s=START_S, node="only", started_s=START_S + 1))
    assert len(watched.parts.ledger) == 1
    await asyncio.sleep(5.0)
    watched.show(pod_object("p", created_s=START_S, node="only", started_s=START_S + 1, finished_s=START_S + 24))
    await asyncio.sleep(5.0)
    assert len(watched.parts.ledger) == 0
    assert watched.savings.of(SavedUnit.DEADLINES).tasks == 0
    assert not watched.parts.learner.summaries("only")


@pytest.mark.parametrize(
    ("policy", "restarts", "report", "is_learned"),
    [
        ("OnFailure", 0, REPORT, True),
        ("OnFailure", 1, REPORT, False),
        ("Always", 0, "", False),
        ("Never", 0, '{"outputTokens": 9000000, "inferenceSeconds": 6.0}', False),
    ],
    ids=["a job", "a job that was restarted", "a server that was stopped", "an impossible report"],
)
async def test_only_runs_whose_times_and_tokens_are_those_of_their_work_are_learned_from_and_compared(
    policy: str, restarts: int, report: str, is_learned: bool
) -> None:
    watched = Watched(make_node("only"))
    await watched.show_run(policy, restarts, report)
    assert bool(watched.parts.learner.summaries("only")) == is_learned
    assert watched.savings.of(SavedUnit.DEADLINES).tasks == is_learned
    assert len(watched.parts.ledger) == 0


async def test_a_server_takes_room_until_it_is_gone_also_while_its_container_is_restarted() -> None:
    watched = Watched(make_node("only"))
    for times in ({}, {"started_s": START_S, "finished_s": START_S + 1}):
        item = pod_object("p", created_s=START_S, node="only", **times)
        item["spec"]["restartPolicy"], item["status"]["phase"] = "Always", "Running"
        watched.show(item)
    assert len(watched.parts.ledger) == 1
    watched.remove("p")
    assert len(watched.parts.ledger) == 0


async def test_a_pod_that_is_deleted_while_its_energy_is_awaited_still_counts() -> None:
    watched = Watched(make_node("only"))
    watched.show(pod_object("p", created_s=START_S))
    watched.show(pod_object("p", created_s=START_S, node="only", started_s=START_S))
    await asyncio.sleep(8.0)
    watched.show(pod_object("p", created_s=START_S, node="only", started_s=START_S, finished_s=START_S + 8))
    watched.remove("p")
    await asyncio.sleep(5.0)
    assert watched.savings.of(SavedUnit.JOULES).tasks == 1


async def test_a_pod_on_a_node_that_is_not_of_the_fleet_is_left_alone() -> None:
    watched = Watched(make_node("only"))
    await watched.run_pod("p", "elsewhere")
    assert watched.savings.of(SavedUnit.DEADLINES).tasks == 0
    assert len(watched.parts.ledger) == 0
    watched.remove("p")
    assert watched.scheduler.find_counterfactual("uid-p") is None


async def test_a_pod_that_has_ended_before_its_node_joins_takes_no_slot_there() -> None:
    watched = Watched(make_node("only"))
    await watched.run_pod("p", "late")
    watched.scheduler.put_node(make_node("late"), UPLINK)
    watched.show(pod_object("p", node="late", started_s=START_S + 1, finished_s=START_S + 9, labels={"seen": "again"}))
    assert len(watched.parts.ledger) == 0
    watched.remove("p")
    assert watched.scheduler.find_counterfactual("uid-p") is None


async def test_an_outcome_that_cannot_be_learned_is_learned_later(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(make_node("only"))
    learn, failures = watched.scheduler.learn, [KeyError("no such law")]

    def fail_once(*arguments: Any) -> float | None:
        if failures:
            raise failures.pop()
        return learn(*arguments)

    monkeypatch.setattr(watched.scheduler, "learn", fail_once)
    await watched.run_pod("p", "only")
    await asyncio.sleep(5.0)
    assert watched.parts.learner.summaries("only")
    assert watched.scheduler.find_counterfactual("uid-p") is None


async def test_a_pod_whose_node_joins_after_it_was_seen_is_work_of_it() -> None:
    watched = Watched(make_node("only"))
    watched.show(pod_object("p", node="late", started_s=START_S))
    watched.scheduler.put_node(make_node("late"), UPLINK)
    watched.show(pod_object("other"))
    assert list(watched.parts.ledger.confirmed) == ["uid-p"]
