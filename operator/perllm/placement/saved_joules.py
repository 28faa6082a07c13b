"""How many joules more the same tasks would have taken under another choice of nodes.

Notation, for a task i that ran on a node of GPU type c, and that the other choice puts on a node of GPU type k
    y        joules that it took
    x, x'    what the laws expect of it on the real node and on the other, for the answer that it turned out to write
    d        error of the laws on real nodes, sum (y - x) / sum x;  d_g  the same of one GPU type, drawn towards d:
             d_g = (sum_g (y - x) + K d) / (sum_g x + K),  K = PRIOR_TASKS times the mean of x
    D        x' (1 + d_k) - y;  where both choices are the same node, which then differs by who else is there,
             y x' / x - y
    total    sum D
    part     of a task in the error of the total: D, and what its y contributes to the errors d_g (the derivative)

What all of the laws' predictions have in common thus cancels: a law that is 10 % too high is so on both nodes. This is
the ratio estimator of survey sampling (Cochran 1977, chapter 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perllm.placement.savings import PRIOR_TASKS, Excess, TaskComparison, number_types, sum_up

LEAST_J = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyComparison(TaskComparison):
    """The energy of one task under both choices.

    Attributes:
        observed_j: y; 0 of a task that was rejected.
        expected_j: x; 0 of a task that was rejected, which says nothing about the laws.
        other_expected_j: x'.
    """

    observed_j: float
    expected_j: float
    other_expected_j: float


def compare_joules(tasks: Sequence[EnergyComparison]) -> Excess:
    """Return how many joules more the other choice takes, over tasks in the order of their ends."""
    if not tasks:
        return Excess()
    observed = np.array([task.observed_j for task in tasks])
    expected = np.array([task.expected_j for task in tasks])
    other = np.array([task.other_expected_j for task in tasks])
    is_same = np.array([task.is_same for task in tasks])
    own_type, other_type, types = number_types(tasks)
    missed, total = observed - expected, max(float(expected.sum()), LEAST_J)
    common, prior = float(missed.sum()) / total, PRIOR_TASKS * total / len(tasks)
    known = np.bincount(own_type, expected, types) + prior
    error = (np.bincount(own_type, missed, types) + prior * common) / known
    elsewhere = np.where(is_same, 0.0, other)
    there = np.where(is_same, observed * other / np.maximum(expected, LEAST_J), other * (1.0 + error[other_type]))
    reach = np.bincount(other_type, elsewhere, types) / known
    own_part = reach[own_type] * (missed - error[own_type] * expected)
    common_part = float(reach.sum()) * prior / total * (missed - common * expected)
    differences = there - observed
    return sum_up(differences, differences + own_part + common_part)
