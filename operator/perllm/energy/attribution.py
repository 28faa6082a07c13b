"""Attribution: splits the energy of a node among the tasks that ran on it."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from perllm.api.task_status import EnergyQuality
from perllm.energy.intervals import Array, Intervals
from perllm.energy.presence import Presence

_MIN_INTERVALS_MEASURED = 2
# A low quantile, since idle power is a lower bound, but not the minimum: a single odd sample should not decide.
_IDLE_QUANTILE = 0.1
_IDLE_STRETCH_S = 10.0
_NOTICEABLE = 0.02


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a task's run with a weight of its own.

    ``power`` is that of the node meanwhile, relative to its power at other times with tasks, both without idle power.
    """

    start_s: float
    end_s: float
    weight: float
    power: float = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """When a task's inference ran; ``end_s`` is infinite while it is running.

    ``weight`` is its expected power, after the ``lead`` if there is one. The tasks present at a moment are charged in
    proportion to their weights.
    """

    task_id: str
    start_s: float
    end_s: float
    weight: float = 1.0
    lead: tuple[Phase, ...] = ()

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All parts of the run, without gaps."""
        start_s = self.lead[-1].end_s if self.lead else self.start_s
        return (*self.lead, Phase(start_s, self.end_s, self.weight))


@dataclass(frozen=True, slots=True)
class Attribution:
    """The energy of one task in joules, and its quality; None, never zero, if it is unknown.

    ``idle_j`` is the part of it that is idle power of the node.
    """

    energy_j: float | None
    quality: EnergyQuality
    idle_j: float | None = None


MISSING = Attribution(None, EnergyQuality.MISSING)


@dataclass(frozen=True, slots=True)
class Charges:
    """What a task is charged for being present.

    Attributes:
        times_s: Shape ``(n,)``: ascending.
        charged_j: Shape ``(n,)``: joules per unit of weight charged until then to a task present from the start.
        idle_j: Shape ``(n,)``: the part of them that is idle power of the node.
    """

    times_s: Array
    charged_j: Array
    idle_j: Array

    def sum_j(self, window: Window) -> float:
        """Return what one task is charged, for the part of its window that lies within these times."""
        return _sum_j(self.times_s, self.charged_j, window)

    def sum_idle_j(self, window: Window) -> float:
        """Return the part of it that is idle power."""
        return _sum_j(self.times_s, self.idle_j, window)


def attribute(
    intervals: Intervals, windows: Sequence[Window], idle_w: float | None, *, wanted: Container[str] | None = None
) -> dict[str, Attribution]:
    """Split the energy of a node among its tasks, as ``share_energy`` does.

    Args:
        intervals: The energy of the node.
        windows: Windows of all tasks that were on the node in that time, not only of those whose energy is needed.
        idle_w: The idle power of the node; None if unknown, in which case all energy is active.
        wanted: The tasks whose energies are returned; None for all.
    """
    asked = [window for window in windows if wanted is None or window.task_id in wanted]
    if not len(intervals.energy_j):
        return {window.task_id: MISSING for window in asked}
    charges = share_energy(intervals, windows, idle_w or 0.0)
    gaps = np.concatenate([[0], np.cumsum(np.isnan(intervals.energy_j))])
    return {window.task_id: _read(window, intervals, gaps, charges) for window in asked}


def share_energy(intervals: Intervals, windows: Sequence[Window], idle_w: float) -> Charges:
    """Return what tasks are charged.

    In each interval, idle power accounts for its whole length, and the rest is active energy, which is spread over the
    time in which any task was present, by the relative power of their phases. At each instant the tasks present share
    the power by their weights. No task is charged for the idle power of an empty node. Takes
    O((samples + windows) log(samples + windows)).
    """
    first_s, last_s = intervals.times_s[0], intervals.times_s[-1]
    phases = [phase for window in windows for phase in window.phases]
    starts_s = np.clip([phase.start_s for phase in phases], first_s, last_s)
    ends_s = np.clip([phase.end_s for phase in phases], first_s, last_s)
    times_s = np.unique(np.concatenate([intervals.times_s, starts_s, ends_s]))
    from_s, length_s = times_s[:-1], np.diff(times_s)
    weights = np.array([phase.weight for phase in phases])
    summed = np.stack([np.ones_like(weights), weights, np.array([phase.power - 1.0 for phase in phases])])
    present, weight, more = _sum_until(starts_s, summed, from_s) - _sum_until(ends_s, summed, from_s)
    interval = np.searchsorted(intervals.times_s, from_s, side="right") - 1
    power = np.where(present > 0.5, 1.0 + more, 0.0)
    busy_s = np.bincount(interval, length_s * power, minlength=len(intervals.energy_j))
    active_j = np.maximum(np.nan_to_num(intervals.energy_j) - idle_w * np.diff(intervals.times_s), 0.0)
    drawn_idle_w = np.minimum(idle_w, _mean_power_w(intervals))
    power_w = drawn_idle_w[interval] + (active_j / np.maximum(busy_s, 1e-9))[interval] * power
    shared_s = np.where(present > 0.5, length_s / np.maximum(weight, 1e-9), 0.0)
    charged_j, idle_j = (
        np.concatenate([[0.0], np.cumsum(one * shared_s)]) for one in (power_w, drawn_idle_w[interval])
    )
    return Charges(times_s, charged_j, idle_j)


def estimate_idle_power_w(intervals: Intervals, windows: Sequence[Window]) -> float | None:
    """Return a low quantile of the node's power without tasks; None if there was always one.

    It is taken over stretches of some seconds, since the times of single samples are not exact.
    """
    if not len(intervals.energy_j):
        return None
    starts_s = np.sort([window.start_s for window in windows])
    ends_s = np.sort([window.end_s for window in windows])
    begun = np.searchsorted(starts_s, intervals.times_s[1:])
    ended = np.searchsorted(ends_s, intervals.times_s[:-1], side="right")
    empty = (begun == ended) & ~np.isnan(intervals.energy_j)
    if not empty.any():
        return None
    length_s, energy_j = np.diff(intervals.times_s)[empty], intervals.energy_j[empty]
    stretch = ((np.cumsum(length_s) - length_s) // _IDLE_STRETCH_S).astype(int)
    total_s, total_j = np.bincount(stretch, length_s), np.bincount(stretch, energy_j)
    whole = total_s >= min(_IDLE_STRETCH_S / 2, total_s.max())
    return float(np.quantile(total_j[whole] / total_s[whole], _IDLE_QUANTILE))


def count_present(windows: Sequence[Window]) -> Presence:
    """Return how many of the windows there are at each moment."""
    return Presence.build([window.start_s for window in windows], [window.end_s for window in windows])


class IdlePower:
    """The idle power of every node by its meters, remembered while the node is busy.

    Args:
        on_change: Called with a node and its idle power in watts whenever that has changed noticeably.
    """

    def __init__(self, on_change: Callable[[str, float], None] = lambda node, power_w: None) -> None:
        self._on_change = on_change
        self._shown_w: dict[str, float] = {}
        self._power_w: dict[tuple[str, tuple[str, ...]], float] = {}

    def get(self, node: str, meters: tuple[str, ...]) -> float | None:
        """Return the idle power of a node in watts, as these meters measure it; None if they never saw it idle."""
        return self._power_w.get((node, meters))

    def observe(self, node: str, intervals: Intervals, windows: Sequence[Window]) -> None:
        """Update the idle power of a node from recent intervals, if it was idle."""
        power_w = estimate_idle_power_w(intervals, windows)
        if power_w is None:
            return
        self._power_w[node, intervals.meters] = power_w
        shown_w = self._shown_w.get(node)
        if shown_w is None or abs(power_w - shown_w) > _NOTICEABLE * shown_w:
            self._shown_w[node] = power_w
            self._on_change(node, power_w)


def _sum_j(times_s: Array, charged_j: Array, window: Window) -> float:
    bounds_s = [(phase.start_s, phase.end_s) for phase in window.phases]
    gained_j = np.diff(np.interp(bounds_s, times_s, charged_j))[:, 0]
    return float(gained_j @ np.array([phase.weight for phase in window.phases]))


def _sum_until(events_s: Array, values: Array, times_s: Array) -> Array:
    """Return, for each of the times, the sums of all events up to then; ``values`` of shape ``(k, events)``."""
    order = np.argsort(events_s)
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values[:, order], axis=1)], axis=1)
    return np.asarray(sums[:, np.searchsorted(events_s[order], times_s, side="right")])


def _mean_power_w(intervals: Intervals) -> Array:
    return np.nan_to_num(intervals.energy_j) / np.diff(intervals.times_s)


def _read(window: Window, intervals: Intervals, gaps: Array, charges: Charges) -> Attribution:
    bounds_s = intervals.times_s
    if not bounds_s[0] <= window.start_s < window.end_s <= bounds_s[-1]:
        return MISSING
    outer = np.searchsorted(bounds_s, window.start_s, side="right") - 1, np.searchsorted(bounds_s, window.end_s)
    if gaps[outer[1]] > gaps[outer[0]]:
        return MISSING
    inner = _count(bounds_s, window) - _count(intervals.steps_s, window) - 1
    measured = inner >= _MIN_INTERVALS_MEASURED and not _count(intervals.changes_s, window)
    quality = EnergyQuality.MEASURED if measured else EnergyQuality.COARSE
    return Attribution(charges.sum_j(window), quality, charges.sum_idle_j(window))


def _count(times_s: Array, window: Window) -> int:
    return int(np.count_nonzero((times_s >= window.start_s) & (times_s <= window.end_s)))
