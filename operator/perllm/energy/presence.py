"""How many tasks a node runs, moment by moment, and what power it draws with as many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perllm.energy.intervals import Array


@dataclass(frozen=True, slots=True)
class Presence:
    """A step function of time.

    Attributes:
        changes_s: Shape ``(n,)``: when tasks begin and end, in seconds since the epoch, ascending.
        counts: Shape ``(n + 1,)``: how many there are before the first change, and after each.
    """

    changes_s: Array
    counts: NDArray[np.int64]

    @classmethod
    def build(cls, starts_s: Sequence[float], ends_s: Sequence[float]) -> "Presence":
        """Return the presence of tasks that run from each of the starts to the end of the same index."""
        times_s = np.concatenate([np.asarray(starts_s, float), np.asarray(ends_s, float)])
        steps = np.concatenate([np.ones(len(starts_s), np.int64), -np.ones(len(ends_s), np.int64)])
        order = np.argsort(times_s)
        return cls(times_s[order], np.concatenate([np.zeros(1, np.int64), np.cumsum(steps[order])]))

    def at(self, times_s: Array) -> NDArray[np.int64]:
        """Return how many tasks there are at each of the times."""
        return self.counts[np.searchsorted(self.changes_s, times_s, side="right")]

    def between(self, start_s: float, end_s: float) -> Array:
        """Return the changes within an interval."""
        inside = (self.changes_s > start_s) & (self.changes_s < end_s)
        return np.unique(self.changes_s[inside])

    def accumulate_s(self, times_s: Array, most: float = 1.0) -> Array:
        """Return the task seconds until each of the times; no moment counts as more than `most` tasks."""
        bounds_s = np.append(self.changes_s, np.inf).clip(max=times_s.max())
        counted_s = np.diff(bounds_s) * np.minimum(self.counts[1:], most)
        until_s: Array = np.interp(times_s, bounds_s, np.append(0.0, np.cumsum(counted_s)))
        return until_s

    def find_mean(self) -> float:
        """Return the mean number of tasks while there are any; 1 if there never are. All of them must end."""
        lengths_s, counts = np.diff(self.changes_s), self.counts[1:-1]
        busy_s = float(lengths_s[counts > 0].sum())
        return float(lengths_s @ counts) / busy_s if busy_s else 1.0


NO_TASKS = Presence.build((), ())
"""No task at any time."""


def learn_powers_w(times_s: Array, power_w: Array, presence: Presence) -> dict[int, float]:
    """Return the mean of the samples by the number of tasks that were present."""
    counts = presence.at(times_s)
    return {int(count): float(power_w[counts == count].mean()) for count in np.unique(counts)}


def find_power_w(powers_w: dict[int, float], count: int) -> float:
    """Return the power at a number of tasks, or else at the nearest known one: 0 only for 0, if others are known."""
    alike = [known for known in powers_w if (known > 0) == (count > 0)] or list(powers_w)
    return powers_w[min(alike, key=lambda known: (abs(known - count), known))]
