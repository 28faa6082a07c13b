from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest

from perllm_lab.hardware.events import ChangeKind, NodeChange
from perllm_lab.hardware.link import LinkType
from perllm_lab.simulator.fleet import FleetPlan, SimulationError, SimulationSettings
from perllm_lab.simulator.result import Fate, TaskTable
from perllm_lab.simulator.scheduler import Completion, NodeReading, QueueRules, RejectTask, SendTask, StationOrder
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request
from unit.simulator.schedulers import RoundRobin
from unit.simulator.small_fleet import fleet, node, requests


def fates(tasks: TaskTable) -> list[Fate]:
    return [Fate(value) for value in tasks.fate]


def test_a_task_that_found_no_room_is_bound_when_a_slot_is_free() -> None:
    scheduler = RoundRobin()
    tasks = simulate(fleet(), requests((0.0, 2.0), (1.0, 1.0)), scheduler).tasks
    assert tasks.decided_s.tolist() == [0.0, 1.0]
    assert tasks.bound_s.tolist() == pytest.approx([0.0, 2.0])
    assert scheduler.notified_of("bind") == [(0.0, 0), (pytest.approx(2.0), 1)]
    assert scheduler.notified_of("release") == [(pytest.approx(2.0), 0), (pytest.approx(3.0), 1)]


def test_a_node_takes_its_slots_times_its_gpus() -> None:
    two_gpus = fleet(replace(node(), gpus=2))
    tasks = simulate(two_gpus, requests((0.0, 1.0), (0.0, 1.0), (0.0, 1.0)), RoundRobin()).tasks
    assert tasks.bound_s.tolist() == pytest.approx([0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("order", "expected"), [(StationOrder.FIRST_COME, [0, 1, 2]), (StationOrder.DEADLINE, [0, 2, 1])]
)
def test_the_queue_of_a_node_has_the_order_of_the_queue_rules(order: StationOrder, expected: list[int]) -> None:
    scheduler = RoundRobin(QueueRules(order))
    simulate(fleet(), requests((0.0, 2.0, 9.0), (0.5, 1.0, 9.0), (1.0, 1.0, 5.0)), scheduler)
    assert [number for _, number in scheduler.notified_of("bind")] == expected


def test_a_task_complete_after_its_deadline_is_late() -> None:
    tasks = simulate(fleet(), requests((0.0, 2.0, 1.5), (5.0, 1.0, 1.5)), RoundRobin()).tasks
    assert fates(tasks) == [Fate.LATE, Fate.IN_TIME]


def test_a_waiting_task_is_dropped_at_its_deadline_and_given_back() -> None:
    scheduler = RoundRobin(QueueRules(drops=True))
    tasks = simulate(fleet(), requests((0.0, 3.0), (0.0, 1.0, 2.0), (0.0, 1.0)), scheduler).tasks
    assert fates(tasks) == [Fate.IN_TIME, Fate.DROPPED, Fate.IN_TIME]
    assert (2.0, 1) in scheduler.notified_of("release")
    assert tasks.bound_s[2] == pytest.approx(3.0)


def test_a_task_that_the_scheduler_still_holds_is_dropped_too() -> None:
    scheduler = Late(QueueRules(drops=True), wait_s=5.0)
    tasks = simulate(fleet(), requests((0.0, 1.0, 2.0), (4.0, 1.0)), scheduler).tasks
    assert fates(tasks) == [Fate.DROPPED, Fate.IN_TIME]
    assert (2.0, 0) in scheduler.notified_of("release")


def test_a_running_task_is_ended_at_its_deadline_and_frees_its_slot() -> None:
    tasks = simulate(
        fleet(), requests((0.0, 5.0, 2.0), (1.0, 1.0)), RoundRobin(QueueRules(ends_at_deadline=True))
    ).tasks
    assert fates(tasks) == [Fate.ENDED, Fate.IN_TIME]
    assert tasks.finished_s.tolist() == pytest.approx([2.0, 3.0])
    assert tasks.energy_j.tolist() == pytest.approx([100.0, 50.0])


def test_a_task_that_gets_its_slot_too_late_is_ended_at_once_where_deadlines_end_tasks() -> None:
    tasks = simulate(
        fleet(), requests((0.0, 3.0), (0.0, 1.0, 2.0)), RoundRobin(QueueRules(ends_at_deadline=True))
    ).tasks
    assert fates(tasks) == [Fate.IN_TIME, Fate.ENDED]
    assert tasks.runs.tolist() == [1, 0]


def test_a_rejected_task_ends_without_a_node() -> None:
    class Rejecting(RoundRobin):
        def place(self, number: int) -> SendTask | RejectTask:
            return RejectTask(number) if number == 0 else super().place(number)

    tasks = simulate(fleet(), requests((0.0, 1.0), (0.0, 1.0)), Rejecting()).tasks
    assert fates(tasks) == [Fate.REFUSED, Fate.IN_TIME]
    assert tasks.node.tolist() == [-1, 0]


def test_tasks_of_a_lost_node_come_again_with_the_time_they_have_left() -> None:
    changes = (NodeChange(2.0, "a-0", ChangeKind.LOSS),)
    scheduler = RoundRobin()
    two = FleetPlan("test", (node("a-0"), node("b-0")), changes)
    result = simulate(two, requests((0.0, 3.0, 5.5), (0.0, 1.0), (0.0, 1.0)), scheduler)
    tasks = result.tasks
    assert tasks.runs.tolist() == [2, 1, 1]
    assert tasks.node.tolist() == [1, 1, 1]
    assert tasks.finished_s.tolist() == pytest.approx([5.0, 1.0, 6.0])
    assert fates(tasks)[0] is Fate.IN_TIME
    assert tasks.energy_j[0] == pytest.approx(5.0 * 50.0), "what the lost run used counts"
    assert scheduler.notified_of("leave") == [(2.0, "a-0")]


def test_a_node_takes_part_from_when_it_joins() -> None:
    late = replace(node("b-0"), joins_at=0.5)
    scheduler = RoundRobin()
    grown = FleetPlan("test", (node("a-0"), late), (NodeChange(3.0, "b-0", ChangeKind.JOIN),))
    tasks = simulate(grown, requests((0.0, 1.0), (4.0, 1.0), (4.0, 1.0)), scheduler).tasks
    assert scheduler.notified_of("join") == [(0.0, "a-0"), (3.0, "b-0")]
    assert tasks.node.tolist() == [0, 1, 0]


def test_what_is_measured_is_reported_at_the_next_scrape_and_not_before() -> None:
    scheduler = RoundRobin()
    simulate(fleet(), requests((0.0, 2.0), (3.0, 3.5), (20.0, 1.0)), scheduler, SimulationSettings(energy_error=0.0))
    seen = [(at_s, found.number) for at_s, found in scheduler.notified_of("learn") if isinstance(found, Completion)]
    assert seen == [(5.0, 0), (10.0, 1)]
    first = scheduler.notified_of("learn")[0][1]
    assert isinstance(first, Completion)
    assert first.energy_j == pytest.approx(100.0)
    assert (first.bound_s, first.output_tokens) == (0.0, 2000)


def test_what_is_measured_is_reported_at_the_first_scrape_after_it_has_settled() -> None:
    scheduler = RoundRobin()
    settled = SimulationSettings(settling_s=4.0)
    simulate(fleet(), requests((0.0, 2.0), (3.0, 0.5), (20.0, 1.0)), scheduler, settled)
    seen = [(at_s, found.number) for at_s, found in scheduler.notified_of("learn") if isinstance(found, Completion)]
    assert seen == [(10.0, 0), (10.0, 1)]


def test_attributed_energy_errs_as_stated_and_alike_for_every_scheduler() -> None:
    def reported_j(scheduler: RoundRobin) -> list[float]:
        asked = requests(*[(2.0 * number, 1.0) for number in range(400)])
        simulate(fleet(node("a-0"), node("b-0")), asked, scheduler, SimulationSettings(energy_error=0.1))
        return [found.energy_j / 50.0 for _, found in scheduler.notified_of("learn") if isinstance(found, Completion)]

    factors = reported_j(RoundRobin())
    assert sum(factors) / len(factors) == pytest.approx(1.0, abs=0.02)
    assert 0.08 < (sum((factor - 1.0) ** 2 for factor in factors) / len(factors)) ** 0.5 < 0.12
    assert reported_j(Late(QueueRules(), wait_s=0.1))[:390] == pytest.approx(factors[:390])


def test_a_scrape_shows_bandwidth_traffic_and_power() -> None:
    scheduler = RoundRobin()
    slow = node(link=LinkType(bandwidth_bps=1e6, rtt_s=0.0))
    changes = (NodeChange(6.0, "n-0", ChangeKind.BANDWIDTH, 0.5),)
    asked = [Request("t", "chat", 1.0, 1, 1000, 250_000, 1e6), *requests((20.0, 1.0))]
    simulate(FleetPlan("test", (slow,), changes), asked, scheduler)
    readings = [seen["n-0"] for _, seen in scheduler.notified_of("observe") if isinstance(seen, dict)]
    assert readings[0] == NodeReading(1e6, 0.0, 10.0)
    assert readings[1].received_bps == pytest.approx(250_000 * 8 / 5.0)
    assert [reading.bandwidth_bps for reading in readings[:4]] == [1e6, 1e6, 5e5, 5e5]


def test_tasks_that_would_run_for_ever_are_left_unfinished() -> None:
    tasks = simulate(fleet(), requests((0.0, 1e5, 3.0), (1.0, 1.0, 3.0)), RoundRobin()).tasks
    assert fates(tasks) == [Fate.UNFINISHED, Fate.UNFINISHED]
    assert tasks.energy_j[0] == pytest.approx(7.0 * 50.0)


def test_a_scheduler_may_wish_to_decide_when_nothing_happens() -> None:
    tasks = simulate(fleet(), requests((0.0, 1.0)), Late(QueueRules(), wait_s=1.5)).tasks
    assert tasks.decided_s.tolist() == [1.5]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (SendTask(0, "nowhere"), "sends task 0 to node 'nowhere', which is not there"),
        (SendTask(1, "n-0"), "acts on task 1, which is coming"),
    ],
)
def test_what_cannot_be_done_is_an_error(action: SendTask, message: str) -> None:
    class Wrong(RoundRobin):
        def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
            return [action]

    with pytest.raises(SimulationError, match=message):
        simulate(fleet(), requests((0.0, 1.0), (5.0, 1.0)), Wrong())


def test_a_wish_that_is_not_used_is_an_error_and_not_an_endless_loop() -> None:
    class Undecided(RoundRobin):
        def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
            return []

        def next_decision_s(self) -> float:
            return 0.0

    with pytest.raises(SimulationError, match="wants to decide"):
        simulate(fleet(), requests((0.0, 1.0)), Undecided())


class Late(RoundRobin):
    """Holds every task for a while."""

    def __init__(self, queue_rules: QueueRules, wait_s: float) -> None:
        super().__init__(queue_rules)
        self.wait_s = wait_s
        self.due_s: dict[int, float] = {}

    def submit(self, number: int, request: Request, now_s: float) -> None:
        super().submit(number, request, now_s)
        self.due_s[number] = now_s + self.wait_s

    def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
        ready = [number for number in self.pending if self.due_s[number] <= now_s]
        self.pending = [number for number in self.pending if number not in ready]
        return [self.place(number) for number in ready]

    def next_decision_s(self) -> float:
        return min((self.due_s[number] for number in self.pending), default=inf)
