"""Who is examined when a slot becomes free, in virtual time."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from perllm.placement.demand import NodeRules, PodDemand
from perllm.placement.ledger import RESERVATION_S
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.lines import MAX_REVIEWED, REVIEW_INTERVAL_S
from perllm.scheduling.pending import PendingTask, Start
from perllm.scheduling.scheduler import Scheduler
from unit.placement.cluster_of import make_node, make_request
from unit.scheduling.schedulers import UPLINK, make_scheduler

ELSEWHERE = PodDemand(rules=NodeRules(selector=(("disk", "none-has-it"),)))


class Room:
    """A node with one slot, which a task called `first` has just got."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.scheduler = make_scheduler(make_node("a", slots=1), now_s=lambda: self.now_s).scheduler
        self.add("first")
        assert self.start() == ["first"]

    def add(self, *names: str, generation: int = 1, priority: float = 0.0, demand: PodDemand | None = None) -> None:
        for name in names:
            request = make_request(name, due_s=1e6)
            request = request if demand is None else replace(request, demand=demand)
            self.scheduler.submit(PendingTask(name, generation, 1, request, priority=priority))

    def examine(self) -> list[tuple[str, bool]]:
        """Return the tasks that are examined until nothing is due, and whether they start."""
        seen: list[tuple[str, bool]] = []
        while True:
            seen += [(action.task.key, isinstance(action, Start)) for action in self.scheduler.due()]
            if self.scheduler.next_s() > self.now_s:
                return seen

    def start(self) -> list[str]:
        return [name for name, has_started in self.examine() if has_started]


@pytest.mark.parametrize(
    ("later_s", "leave"),
    [
        (0.0, lambda scheduler: scheduler.withdraw("first")),
        (0.0, lambda scheduler: scheduler.cancel("first")),
        (RESERVATION_S, lambda scheduler: scheduler.refresh()),
    ],
    ids=["withdrawn", "cancelled", "expired"],
)
def test_the_most_urgent_task_gets_the_slot_of_one_that_does_not_come(
    later_s: float, leave: Callable[[Scheduler], object]
) -> None:
    room = Room()
    room.scheduler.note_pod("first")
    room.now_s += later_s
    room.add("low", priority=-1.0)
    room.add("high", priority=1.0)
    room.examine()
    leave(room.scheduler)
    assert room.start() == ["high"]


def test_tasks_that_no_node_can_take_cost_nothing_when_a_slot_becomes_free() -> None:
    room = Room()
    for number in range(50):
        room.add(f"odd-{number}", demand=replace(ELSEWHERE, cpu_cores=float(number)))
    room.now_s += REVIEW_INTERVAL_S
    room.examine()
    room.scheduler.free("a")
    assert room.examine() == []
    room.now_s += 2 * REVIEW_INTERVAL_S
    assert len(room.examine()) == MAX_REVIEWED


def test_tasks_that_no_node_could_take_are_examined_once_one_can() -> None:
    room = Room()
    room.add("odd", demand=ELSEWHERE)
    room.examine()
    room.scheduler.put_node(make_node("b", labels={"disk": "none-has-it"}), UPLINK)
    assert room.start() == ["odd"]


def test_a_denied_task_is_retried_as_it_is_by_then() -> None:
    room = Room()
    denied = PendingTask("denied", 1, 1, make_request("denied", due_s=1e6))
    room.scheduler.withdraw("first")
    room.scheduler.submit(denied)
    assert room.start() == ["denied"]
    room.scheduler.note_denied(denied, PodDenial(DenialCause.QUOTA, "exceeded quota"))
    room.add("denied", generation=2, priority=1.0)
    room.add("other")
    room.scheduler.retry("denied")
    assert room.start() == ["denied"]
