"""A difference between two choices of nodes, summed over tasks, with its interval.

Notation
    total    sum of the differences of all tasks
    error    standard deviation of the total: from successive batches, since the tasks of one busy minute err together
    interval total -+ t error, with the 95 % quantile t of Student's distribution for so many batches
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt
from typing import Generic, TypeVar

import numpy as np

from perllm.policy.problem import FloatArray, IntArray

PRIOR_TASKS = 10.0
"""So many tasks of a GPU type count as much as all others do, when the errors of the laws on it are estimated."""

MIN_TASKS = 8
"""Of fewer tasks nothing is known about the spread."""

BLOCK = 128
"""Tasks that are evaluated together, and then only as a sum: the errors of laws change as they learn."""

_Z95 = 1.6449

T = TypeVar("T")


class SavedUnit(StrEnum):
    """What is compared."""

    JOULES = "joules"
    DEADLINES = "deadlines"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """Where one task ran, and where the other choice puts it.

    Attributes:
        gpu_type: of the real node; empty for a task that was rejected.
        other_gpu_type: of the other node.
        is_same: whether both are the same node.
    """

    gpu_type: str
    other_gpu_type: str
    is_same: bool


@dataclass(frozen=True, slots=True)
class Excess:
    """How much more the other choice comes to.

    Attributes:
        total: sum over all tasks.
        error: its standard deviation; inf while too few tasks are known.
        tasks: how many were compared.
        batches: from how many batches the error was estimated.
    """

    total: float = 0.0
    error: float = 0.0
    tasks: int = 0
    batches: int = 0

    @property
    def low(self) -> float:
        """Lower end of the 90 % interval."""
        return self.total - self._reach

    @property
    def high(self) -> float:
        """Upper end of the 90 % interval."""
        return self.total + self._reach

    def __neg__(self) -> "Excess":
        return Excess(-self.total, self.error, self.tasks, self.batches)

    def __add__(self, other: "Excess") -> "Excess":
        return Excess(
            self.total + other.total,
            sqrt(self.error**2 + other.error**2),
            self.tasks + other.tasks,
            self.batches + other.batches,
        )

    @property
    def _reach(self) -> float:
        if self.tasks == 0:
            return 0.0
        return inf if self.batches < 2 else _student95(self.batches - 1) * self.error


class RunningExcess(Generic[T]):
    """The running difference of one unit, in memory of a bounded size.

    Args:
        estimate: returns the difference over tasks in the order of their ends.
    """

    def __init__(self, estimate: Callable[[Sequence[T]], Excess]) -> None:
        self._estimate = estimate
        self._recent: list[T] = []
        self._earlier = Excess()
        self._known: Excess | None = None

    def add(self, comparison: T) -> None:
        """Count a task."""
        self._known = None
        self._recent.append(comparison)
        if len(self._recent) == 2 * BLOCK:
            # Half of them are kept, so that there are always enough to know their spread.
            self._earlier += self._estimate(self._recent[:BLOCK])
            del self._recent[:BLOCK]

    @property
    def excess(self) -> Excess:
        """How much more the other choice comes to, over all tasks that were counted."""
        if self._known is None:
            self._known = self._earlier + self._estimate(self._recent)
        return self._known


def sum_up(differences: FloatArray, parts: FloatArray, variance: float = 0.0) -> Excess:
    """Return the sum over tasks, with its error.

    Args:
        differences: of the tasks in the order of their ends, shape (n,).
        parts: of each task in the error of the sum, shape (n,).
        variance: of the sum for another reason.
    """
    count = len(differences)
    if count < MIN_TASKS:
        return Excess(float(differences.sum()), inf if count else 0.0, count, 0)
    batches = int(sqrt(count))
    sums = np.array([part.sum() for part in np.array_split(parts - parts.mean(), batches)])
    variance += batches / (batches - 1) * float((sums**2).sum())
    return Excess(float(differences.sum()), sqrt(variance), count, batches)


def number_types(tasks: Sequence[TaskComparison]) -> tuple[IntArray, IntArray, int]:
    """Return the GPU types of real and other nodes as numbers, shapes (n,), and how many types there are."""
    names, others = [task.gpu_type for task in tasks], [task.other_gpu_type for task in tasks]
    place = {name: number for number, name in enumerate(sorted({*names, *others}))}
    return np.array([place[name] for name in names]), np.array([place[name] for name in others]), len(place)


def _student95(freedom: int) -> float:
    """Return the 95 % quantile of Student's distribution (first terms of Cornish and Fisher, within 3 % from 2 on)."""
    z, n = _Z95, float(freedom)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
