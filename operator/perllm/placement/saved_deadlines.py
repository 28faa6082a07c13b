"""How many more deadlines would have been met under another choice of nodes.

Notation, for a task i that the other choice puts on a node of GPU type k
    y        1 if it was in time, 0 if not
    e        ln (seconds that it took / seconds that the laws give it), of tasks that ran to their end
    r        ln (seconds to its deadline / seconds that the laws give it) on the other node
    F_k      distribution of e on nodes of type k, in which all tasks together count as PRIOR_TASKS
    P        chance to be in time on the other node: F_k(r); where that is the real one, whether e <= r
    D        P - y, how many more deadlines the other choice meets
    total    sum D
    part     of a task in the error of the total: D, and what its e contributes to F_k (the influence function)

All seconds are in hindsight, for the answer that a task turned out to write. What the laws get wrong is in e, and thus
on both nodes alike; no shape of their errors is taken for granted. What chances come to adds sum P (1 - P) to the
variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perllm.placement.savings import PRIOR_TASKS, Excess, TaskComparison, number_types, sum_up
from perllm.policy.problem import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineComparison(TaskComparison):
    """The deadline of one task under both choices.

    Attributes:
        is_met: whether it was in time; y.
        error: e; None of a task that did not run to its end.
        other_reach: r; -inf where no time was left.
    """

    is_met: bool
    error: float | None
    other_reach: float


def compare_deadlines(tasks: Sequence[DeadlineComparison]) -> Excess:
    """Return how many deadlines more the other choice meets, over tasks in the order of their ends; O(n^2)."""
    if not tasks:
        return Excess()
    is_met = np.array([float(task.is_met) for task in tasks])
    has_run = np.array([task.error is not None for task in tasks])
    error = np.array([0.0 if task.error is None else task.error for task in tasks])
    is_same = np.array([task.is_same for task in tasks]) & has_run
    in_time = error[None, :] <= np.array([task.other_reach for task in tasks])[:, None]
    shares = _find_shares(tasks, has_run)
    chances = np.minimum((shares * in_time).sum(axis=1), 1.0)
    influence = np.where(is_same[:, None], 0.0, shares * (in_time - chances[:, None])).sum(axis=0)
    differences = np.where(is_same, in_time.diagonal(), chances) - is_met
    variance = float((chances * (1.0 - chances))[~is_same].sum())
    return sum_up(differences, differences + influence, variance)


def _find_shares(tasks: Sequence[DeadlineComparison], has_run: BoolArray) -> FloatArray:
    """Return what each task counts in the distribution F that holds for each task elsewhere, shape (n, n)."""
    own_type, other_type, _ = number_types(tasks)
    weights = (other_type[:, None] == own_type[None, :]) + PRIOR_TASKS / max(int(has_run.sum()), 1)
    weights = weights * has_run
    shares: FloatArray = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return shares
