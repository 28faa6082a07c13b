"""The energy of a node between the samples of its devices' counters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Intervals:
    """Energy per interval between consecutive samples.

    Attributes:
        times_s: Shape ``(n + 1,)``, or empty: bounds of the intervals in seconds since the epoch, ascending.
        energy_j: Shape ``(n,)``: joules; NaN where unknown (a gap).
    """

    times_s: Array
    energy_j: Array


EMPTY = Intervals(np.empty(0), np.empty(0))


def join_counters(devices: Sequence[tuple[Sequence[float], Sequence[float]]], max_device_power_w: float) -> Intervals:
    """Return the total energy of a node's devices, for the time in which all of them have samples.

    Args:
        devices: Times in seconds and joules of each device's counter, in order of time.
        max_device_power_w: A counter that rises faster than this has jumped, and one that falls was reset: a gap.
    """
    parts = [(np.asarray(times_s), np.asarray(energy_j)) for times_s, energy_j in devices]
    if not parts or any(len(times_s) < 2 for times_s, _ in parts):
        return EMPTY
    start_s, end_s = max(times_s[0] for times_s, _ in parts), min(times_s[-1] for times_s, _ in parts)
    bounds_s = np.unique(np.concatenate([times_s for times_s, _ in parts]))
    bounds_s = bounds_s[(bounds_s >= start_s) & (bounds_s <= end_s)]
    if len(bounds_s) < 2:
        return EMPTY
    return Intervals(bounds_s, sum((_spread(part, bounds_s, max_device_power_w) for part in parts), np.zeros(1)))


def _spread(device: tuple[Array, Array], bounds_s: Array, max_power_w: float) -> Array:
    """Return the joules of one device per common interval, assuming constant power between its own samples."""
    times_s, energy_j = device
    power_w = np.diff(energy_j) / np.diff(times_s)
    power_w[(power_w < 0) | (power_w > max_power_w)] = np.nan
    own = np.searchsorted(times_s, bounds_s[:-1], side="right") - 1
    return np.asarray(power_w[own] * np.diff(bounds_s))
