"""Tasks that wait for cheaper energy, and until when.

Notation, for a task i, a node a, and the steps k of the next day, the current one being 0
    E(i, a)     expected joules of i on a
    c(a, k)     cost of a joule on a in step k                                                     (placement/costs.py)
    T(i, a)     the seconds within which i is complete on a with the chance that it keeps, once it starts: the node is
                taken to be full by then, since others wait for the same hour
    w(i, a)     the slot seconds that i takes of a meanwhile
    free(a, k)  slot seconds of a in step k, less those planned for other waiting tasks

    open        k = 0, or i is complete in time even if it starts at the end of k:  end(k) + T(i, a) <= deadline,
                and w(i, a) <= free(a, k)
    plan        argmin over a and open k > 0 of E(i, a) c(a, k); the first of equal steps
    wait        until that step begins, if it saves at least `MIN_SAVING` of what i costs on the node of the present
                choice; else start now

That is the greedy solution of a linear program, the transport of work into the cheapest slot seconds before its
deadline. Costs are compared by their expected values: a task that waits is planned again whenever these change, so one
that could wait longer has the chance to do so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np

from perllm.costs.outlook import STEP_S
from perllm.placement.costs import JouleCosts
from perllm.placement.forecast import LOGISTIC
from perllm.placement.placer import Placement
from perllm.policy.arrays import extend
from perllm.policy.problem import FloatArray

MAX_STEPS = 96
"""A day, the longest deadline."""

MIN_SAVING = 0.02
"""A wait that saves less is not worth its risk."""

EARLY_S = 0.1
"""A wait may end slightly early because clocks round; a task would be planned for the same moment once more."""

USABLE = 0.7
"""Share of a node's slot seconds that is planned for tasks that wait; the others are for those that do not."""


@dataclass(frozen=True, slots=True)
class _Plan:
    row: int
    step: int
    slot_s: float


class StartPlanner:
    """Plans when tasks start that may wait for cheaper energy.

    Args:
        costs: what joules cost.
        unix_now: wall clock, in seconds.
    """

    def __init__(self, costs: JouleCosts, unix_now: Callable[[], float]) -> None:
        self._costs = costs
        self._unix_now = unix_now
        self._plans: dict[str, _Plan] = {}
        self._planned: dict[int, FloatArray] = {}

    def plan(self, placement: Placement, kept_chance: float) -> float | None:
        """Return until which Unix time a task should wait for cheaper energy; None if it should start now.

        Args:
            placement: the present choice for the task.
            kept_chance: the chance to be in time that it keeps.
        """
        self.forget(placement.request.task_id)
        now_s, rows = self._unix_now() + EARLY_S, placement.rows
        first = int(now_s // STEP_S)
        steps = min(int((placement.request.due_s - now_s) // STEP_S), MAX_STEPS)
        chosen = placement.favourite
        if steps < 2 or chosen is None:
            return None
        duration_s, slot_s = _find_durations(placement, kept_chance)
        costs = placement.outlook.energy.energy_j[:, None] * self._costs.over(rows, now_s, steps)
        ends_s = (first + 1.0 + np.arange(steps)) * STEP_S
        is_open = ends_s + duration_s[:, None] <= placement.request.due_s
        is_open &= slot_s[:, None] <= self._find_free(placement, first, steps)
        is_open[:, 0] = False
        later = np.where(is_open, costs, np.inf)
        step = int(np.argmin(later.min(axis=0)))
        arm = int(np.argmin(later[:, step]))
        # Where energy is free both now and later, nothing is saved.
        if later[arm, step] >= (1.0 - MIN_SAVING) * costs[chosen, 0]:
            return None
        self._book(placement.request.task_id, _Plan(int(rows[arm]), first + step, float(slot_s[arm])))
        self._drop_past(first)
        return (first + step) * STEP_S

    def forget(self, task_id: str) -> None:
        """Forget the plan of a task: it starts, or is planned again."""
        plan = self._plans.pop(task_id, None)
        if plan is not None and plan.step in self._planned:
            self._planned[plan.step][plan.row] -= plan.slot_s

    def _book(self, task_id: str, plan: _Plan) -> None:
        planned = self._planned[plan.step] = extend(self._planned.get(plan.step, np.zeros(0)), plan.row + 1)
        planned[plan.row] += plan.slot_s
        self._plans[task_id] = plan

    def _find_free(self, placement: Placement, first: int, steps: int) -> FloatArray:
        """Return the slot seconds that are free in each step, shape (n, steps)."""
        rows, arms = placement.rows, placement.arms
        size = int(rows.max(initial=-1)) + 1
        planned = np.stack(
            [extend(self._planned.get(first + step, np.zeros(0)), size)[rows] for step in range(steps)], axis=1
        )
        usable_s = np.where(arms.allowed, arms.compute_capacity, 0.0) * STEP_S * USABLE
        free_s: FloatArray = usable_s[:, None] - planned
        return free_s

    def _drop_past(self, first: int) -> None:
        for step in [step for step in self._planned if step < first]:
            del self._planned[step]


def _find_durations(placement: Placement, kept_chance: float) -> tuple[FloatArray, FloatArray]:
    """Return T, and the slot seconds of the task, on each node; shape (n,).

    T is that of the longest of the equally likely answers, with which the chance is the least.
    """
    outlook, capacity = placement.outlook, placement.arms.compute_capacity
    times = outlook.times
    full_s = times.solo_token_s + times.contention_s * np.maximum(capacity / outlook.gpus - 1.0, 0.0)
    token_s = np.maximum(times.token_s, full_s)
    fixed_s = times.fixed_s - outlook.queue_s
    safety = np.exp(outlook.time_spread / LOGISTIC * log(kept_chance / (1.0 - kept_chance)))
    slot_s = (fixed_s + placement.inference.output_tokens * token_s) * placement.request.slots
    return (fixed_s + outlook.lengths.max() * token_s) * safety, slot_s
