from dataclasses import replace
from math import inf

import pytest

from perllm.cluster.node import Node
from perllm.controller.task import Task
from perllm.costs.outlook import STEP_S, CostOutlook
from perllm.scheduling.pending import Start, Wait
from unit.controller.samples import make_task
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import make_scheduler

HOUR_S = 3600.0
BEGIN_S = HOUR_S


class Waiting:
    """A scheduler at the beginning of an hour; costs are given by the hour, the last of them from then on."""

    def __init__(self, *costs: float, node: Node | None = None) -> None:
        self.now_s = BEGIN_S
        self.scheduler = make_scheduler(node or make_node("a"), now_s=lambda: self.now_s).scheduler
        if costs:
            self.put_costs(*costs)

    def put_costs(self, *costs: float) -> None:
        series = tuple(cost for cost in costs for _ in range(int(HOUR_S / STEP_S)))
        self.scheduler.put_costs(CostOutlook(self.now_s, (series,), {"a": 0}))

    def add(self, name: str = "t", deadline: str = "4h", when_to_run: str = "Cheapest", **spec: object) -> Task:
        task = make_task(name, received_s=self.now_s, deadline=deadline, when_to_run=when_to_run, **spec)
        self.scheduler.submit(task.to_pending(1))
        return task

    def decide(self, after_h: float = 0.0) -> dict[str, float]:
        """Return until which hour the tasks wait that are examined so many hours later.

        It is 0 for those that start now, and infinite for those that wait for room.
        """
        self.now_s += after_h * HOUR_S
        found: dict[str, float] = {}
        for action in self.scheduler.due():
            until_s = inf
            if isinstance(action, Start):
                until_s = BEGIN_S
            elif isinstance(action, Wait) and action.until_s is not None:
                until_s = action.until_s
            found[action.task.key.removeprefix("lab/")] = (until_s - BEGIN_S) / HOUR_S
        return found


class TestDeferral:
    def test_a_task_waits_for_the_cheapest_hour_before_its_deadline_and_then_starts(self) -> None:
        on = Waiting(1.0, 0.8, 0.5, 0.9, 0.1)
        on.add()
        assert on.decide() == {"t": 2.0}
        assert on.decide(after_h=1.9) == {}
        assert on.decide(after_h=0.1) == {"t": 0.0}

    def test_a_wait_that_ends_early_by_rounding_is_over(self) -> None:
        on = Waiting(1.0, 0.5)
        on.add()
        assert on.decide() == {"t": 1.0}
        assert on.decide(after_h=1.0 - 1e-7) == {"t": 0.0}

    def test_a_task_starts_at_once_unless_it_may_wait(self) -> None:
        on = Waiting(1.0, 0.1)
        on.add(when_to_run="Soonest")
        assert on.decide() == {"t": 0.0}

    @pytest.mark.parametrize("costs", [(), (1.0, 0.99), (0.0, 0.0, 1.0)])
    def test_a_task_does_not_wait_for_next_to_nothing(self, costs: tuple[float, ...]) -> None:
        on = Waiting(*costs)
        on.add()
        assert on.decide() == {"t": 0.0}

    @pytest.mark.parametrize(
        ("deadline", "chance", "until_h"), [("75m", 0.95, 0.0), ("80m", 0.95, 1.0), ("80m", 0.999, 0.0)]
    )
    def test_a_task_waits_only_as_far_as_its_chance_permits(self, deadline: str, chance: float, until_h: float) -> None:
        on = Waiting(1.0, 0.1)
        on.add(deadline=deadline, minHitChance=chance, outputTokens=800)
        assert on.decide() == {"t": until_h}

    def test_no_more_tasks_wait_for_an_hour_than_have_room_in_it(self) -> None:
        on = Waiting(1.0, 0.1, 0.5, node=make_node("a", slots=1))
        for number in range(20):
            on.add(f"t{number}", "3h", outputTokens=4000)
        hours = list(on.decide().values())
        cheap, later = [hour for hour in hours if 1.0 <= hour < 2.0], [hour for hour in hours if 2.0 <= hour < 3.0]
        assert cheap
        assert later

    def test_tasks_are_planned_again_when_costs_change(self) -> None:
        on = Waiting(1.0, 0.9, 0.1)
        on.add()
        assert on.decide() == {"t": 2.0}
        on.put_costs(0.1, 0.9, 1.0)
        assert on.decide() == {"t": 0.0}

    def test_a_task_that_is_to_start_soonest_after_all_does(self) -> None:
        on = Waiting(1.0, 0.1)
        task = on.add()
        on.decide()
        on.scheduler.submit(replace(task.to_pending(1), generation=2, kept_chance=None))
        assert on.decide() == {"t": 0.0}

    def test_a_task_that_waits_can_be_withdrawn(self) -> None:
        on = Waiting(1.0, 0.1)
        on.add()
        on.decide()
        assert (on.scheduler.waiting, on.scheduler.deferred) == (1, 1)
        on.scheduler.withdraw("lab/t")
        assert on.decide(after_h=2) == {}
        assert on.scheduler.waiting == 0
