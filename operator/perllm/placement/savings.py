"""What the same tasks would have come to under another choice of nodes, by what they came to under the real one.

Notation, for a task i that ran on a node of GPU type c, and that the other choice puts on a node of GPU type k
    y        what was observed: joules, or 1 if it was in time and 0 if not
    x, x'    what the laws expected of it on the real node and on the other, for the answer that it turned out to write
    w, w'    what an error of the laws is proportional to: x and x' for joules, 1 for deadlines
    d        error of the laws on real nodes, sum (y - x) / sum w;  d_g  the same of one GPU type, drawn towards d:
             d_g = (sum_g (y - x) + K d) / (sum_g w + K),  K = PRIOR_TASKS times the mean of w
    D_i      x' + d_k w' - y, how much more the other choice comes to;  0 where both choices are the same node

    total    sum D_i
    error    standard deviation of the total: each D_i with its part in the errors d_g (the derivative of the total),
             summed over successive batches, since the tasks of one busy minute err together; for deadlines also that
             of what the other choice's chances x' would have come to, sum x' (1 - x')
    interval total -+ t error, with the 95 % quantile t of Student's distribution for so many batches

What all of the laws' predictions have in common thus cancels: a law that is 10 % too high is so on both nodes. This is
the ratio and difference estimator of survey sampling (Cochran 1977, chapters 6 and 7).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt

import numpy as np

from perllm.policy.problem import BoolArray, FloatArray, IntArray

PRIOR_TASKS = 10.0
"""So many tasks of a GPU type count as much as all others do, when the error of the laws on it is estimated."""

MIN_TASKS = 8
"""Of fewer tasks nothing is known about the spread."""

BLOCK = 128
"""Tasks that are evaluated together, and then only as a sum: the errors of laws change as they learn."""

_Z95 = 1.6449


class SavedUnit(StrEnum):
    """What is compared."""

    JOULES = "joules"
    DEADLINES = "deadlines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One task under both choices; joules, or chances to be in time.

    Attributes:
        observed: what it came to.
        expected: what had been expected of it on its real node.
        other_expected: what had been expected of it on the other node.
        gpu_type: of the real node.
        other_gpu_type: of the other node.
        is_same: whether both are the same node.
        has_run: whether it ran at all; a rejected task takes nothing, and says nothing about the laws.
    """

    observed: float
    expected: float
    other_expected: float
    gpu_type: str
    other_gpu_type: str
    is_same: bool
    has_run: bool = True


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


class RunningExcess:
    """The running difference of one unit, in memory of a bounded size."""

    def __init__(self, unit: SavedUnit) -> None:
        self._unit = unit
        self._recent: list[Comparison] = []
        self._earlier = Excess()
        self._known: Excess | None = None

    def add(self, comparison: Comparison) -> None:
        """Count a task."""
        self._known = None
        self._recent.append(comparison)
        if len(self._recent) == 2 * BLOCK:
            # Half of them are kept, so that there are always enough to know their spread.
            self._earlier += estimate(self._recent[:BLOCK], self._unit)
            del self._recent[:BLOCK]

    @property
    def excess(self) -> Excess:
        """How much more the other choice comes to, over all tasks that were counted."""
        if self._known is None:
            self._known = self._earlier + estimate(self._recent, self._unit)
        return self._known


def estimate(comparisons: Sequence[Comparison], unit: SavedUnit) -> Excess:
    """Return how much more the other choice comes to, over tasks in the order of their ends."""
    count = len(comparisons)
    if not count:
        return Excess()
    types = sorted({name for one in comparisons for name in (one.gpu_type, one.other_gpu_type)})
    place = {name: number for number, name in enumerate(types)}
    sample = _Sample(
        observed=np.array([one.observed for one in comparisons]),
        expected=np.array([one.expected for one in comparisons]),
        other=np.array([one.other_expected for one in comparisons]),
        gpu_type=np.array([place[one.gpu_type] for one in comparisons]),
        other_type=np.array([place[one.other_gpu_type] for one in comparisons]),
        differs=np.array([not one.is_same for one in comparisons]),
        has_run=np.array([one.has_run for one in comparisons]),
        types=len(types),
    )
    differences, parts = _compare(sample, is_relative=unit is SavedUnit.JOULES)
    if count < MIN_TASKS:
        return Excess(float(differences.sum()), inf, count, 0)
    batches = int(sqrt(count))
    sums = np.array([part.sum() for part in np.array_split(parts - parts.mean(), batches)])
    variance = batches / (batches - 1) * float((sums**2).sum())
    if unit is SavedUnit.DEADLINES:
        chances = np.clip(sample.other[sample.differs], 0.0, 1.0)
        variance += float((chances * (1.0 - chances)).sum())
    error = sqrt(variance)
    return Excess(float(differences.sum()), error, count, batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Comparisons as arrays of shape (n,), with the numbers of the GPU types."""

    observed: FloatArray
    expected: FloatArray
    other: FloatArray
    gpu_type: IntArray
    other_type: IntArray
    differs: BoolArray
    has_run: BoolArray
    types: int


def _compare(sample: _Sample, *, is_relative: bool) -> tuple[FloatArray, FloatArray]:
    """Return the difference of each task, and its part in the error of their sum; shape (n,) each."""
    weight = np.where(sample.has_run, sample.expected if is_relative else 1.0, 0.0)
    other_weight = np.where(sample.differs, sample.other if is_relative else 1.0, 0.0)
    missed, types = sample.observed - sample.expected, sample.types
    total_weight = max(float(weight.sum()), 1e-9)
    prior = PRIOR_TASKS * total_weight / len(weight)
    common = float(missed.sum()) / total_weight
    known = np.bincount(sample.gpu_type, weight, types) + prior
    error = (np.bincount(sample.gpu_type, missed, types) + prior * common) / known
    differences = (
        np.where(sample.differs, sample.other - sample.observed, 0.0) + error[sample.other_type] * other_weight
    )
    reach = np.bincount(sample.other_type, other_weight, types) / known
    own_part = reach[sample.gpu_type] * (missed - error[sample.gpu_type] * weight)
    common_part = float(reach.sum()) * prior / total_weight * (missed - common * weight)
    return differences, differences + own_part + common_part


def _student95(freedom: int) -> float:
    """Return the 95 % quantile of Student's distribution (first terms of Cornish and Fisher, within 3 % from 2 on)."""
    z, n = _Z95, float(freedom)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
