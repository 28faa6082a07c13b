"""Whose energy it was: a node's energy split over the tasks that ran on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perllm.api.task_status import EnergyQuality
from perllm.energy.intervals import Array, Intervals

_MIN_INTERVALS_MEASURED = 2
# Low, for idle power is what remains when nobody works, yet not the lowest: one odd sample should not decide.
_IDLE_QUANTILE = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """When a task's inference ran; ``end_s`` is infinite while it still does.

    ``weight`` is its expected power; of the tasks present at a moment each is charged in proportion to it.
    """

    task_id: str
    start_s: float
    end_s: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Attribution:
    """The energy of one task in joules, and how good it is; None, never zero, when it is not known."""

    energy_j: float | None
    quality: EnergyQuality


MISSING = Attribution(None, EnergyQuality.MISSING)


def attribute(intervals: Intervals, windows: Sequence[Window], idle_w: float | None) -> dict[str, Attribution]:
    """Split a node's energy over its tasks.

    Per interval, idle power counts for its whole length and the rest is active energy, which belongs to the time
    in which any task was present. At each instant the tasks present share the power by their weights; nobody is
    charged for the idle power of a node without tasks. Takes O((samples + windows) log(samples + windows)).

    Args:
        intervals: The node's energy.
        windows: Of all tasks that were on the node in that time, whether or not their energy is asked for.
        idle_w: The node's idle power; None when unknown: then all energy is active.
    """
    if not len(intervals.energy_j):
        return {window.task_id: MISSING for window in windows}
    times_s, shares_j = _accumulate_shares(intervals, windows, idle_w or 0.0)
    gaps = np.concatenate([[0], np.cumsum(np.isnan(intervals.energy_j))])
    return {window.task_id: _read(window, intervals, gaps, times_s, shares_j) for window in windows}


def estimate_idle_power_w(intervals: Intervals, windows: Sequence[Window]) -> float | None:
    """Return the power of the node in intervals without any task: a low quantile, or None without such intervals."""
    if not len(intervals.energy_j):
        return None
    starts_s = np.sort([window.start_s for window in windows])
    ends_s = np.sort([window.end_s for window in windows])
    begun = np.searchsorted(starts_s, intervals.times_s[1:])
    ended = np.searchsorted(ends_s, intervals.times_s[:-1], side="right")
    empty = (begun == ended) & ~np.isnan(intervals.energy_j)
    if not empty.any():
        return None
    power_w = intervals.energy_j[empty] / np.diff(intervals.times_s)[empty]
    return float(np.quantile(power_w, _IDLE_QUANTILE))


class IdlePower:
    """The idle power of every node, remembered while a node is too busy to see it."""

    def __init__(self, known_w: Mapping[str, float] | None = None) -> None:
        self._power_w = dict(known_w or {})

    def get(self, node: str) -> float | None:
        """Return what is remembered of a node, in watts; None when it was never seen idle."""
        return self._power_w.get(node)

    def observe(self, node: str, intervals: Intervals, windows: Sequence[Window]) -> float | None:
        """Return the node's idle power in watts after a look at its last minutes; None when never seen."""
        power_w = estimate_idle_power_w(intervals, windows)
        if power_w is not None:
            self._power_w[node] = power_w
        return self._power_w.get(node)


def _accumulate_shares(intervals: Intervals, windows: Sequence[Window], idle_w: float) -> tuple[Array, Array]:
    """Return times and, for each, the joules per weight that a task present from the beginning was charged by then."""
    first_s, last_s = intervals.times_s[0], intervals.times_s[-1]
    starts_s = np.clip([window.start_s for window in windows], first_s, last_s)
    ends_s = np.clip([window.end_s for window in windows], first_s, last_s)
    times_s = np.unique(np.concatenate([intervals.times_s, starts_s, ends_s]))
    from_s, length_s = times_s[:-1], np.diff(times_s)
    weights = np.array([window.weight for window in windows])
    ones = np.ones_like(weights)
    present = _sum_until(starts_s, ones, from_s) - _sum_until(ends_s, ones, from_s)
    weight = _sum_until(starts_s, weights, from_s) - _sum_until(ends_s, weights, from_s)
    interval = np.searchsorted(intervals.times_s, from_s, side="right") - 1
    busy_s = np.bincount(interval, length_s * (present > 0.5), minlength=len(intervals.energy_j))
    active_j = np.maximum(np.nan_to_num(intervals.energy_j) - idle_w * np.diff(intervals.times_s), 0.0)
    power_w = np.minimum(idle_w, _mean_power_w(intervals)) + active_j / np.maximum(busy_s, 1e-9)
    shared_w = np.where(present > 0.5, power_w[interval] / np.maximum(weight, 1e-9), 0.0)
    return times_s, np.concatenate([[0.0], np.cumsum(shared_w * length_s)])


def _sum_until(events_s: Array, values: Array, times_s: Array) -> Array:
    """Return the sum of the values of all events up to each of the times."""
    order = np.argsort(events_s)
    sums = np.concatenate([[0.0], np.cumsum(values[order])])
    return np.asarray(sums[np.searchsorted(events_s[order], times_s, side="right")])


def _mean_power_w(intervals: Intervals) -> Array:
    return np.nan_to_num(intervals.energy_j) / np.diff(intervals.times_s)


def _read(window: Window, intervals: Intervals, gaps: Array, times_s: Array, shares_j: Array) -> Attribution:
    bounds_s = intervals.times_s
    if not bounds_s[0] <= window.start_s < window.end_s <= bounds_s[-1]:
        return MISSING
    outer = np.searchsorted(bounds_s, window.start_s, side="right") - 1, np.searchsorted(bounds_s, window.end_s)
    if gaps[outer[1]] > gaps[outer[0]]:
        return MISSING
    start_j, end_j = np.interp([window.start_s, window.end_s], times_s, shares_j)
    inner = np.searchsorted(bounds_s, window.end_s, side="right") - np.searchsorted(bounds_s, window.start_s) - 1
    measured = inner >= _MIN_INTERVALS_MEASURED
    return Attribution(
        float(end_j - start_j) * window.weight, EnergyQuality.MEASURED if measured else EnergyQuality.COARSE
    )
