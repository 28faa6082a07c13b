"""The energy of a node between the samples of its devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _nothing() -> Array:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Energy per interval between consecutive samples.

    Attributes:
        times_s: Shape ``(n + 1,)``, or empty: bounds of the intervals in seconds since the epoch, ascending.
        energy_j: Shape ``(n,)``: joules; NaN where unknown (a gap).
        changes_s: When a device appeared or vanished: from then on the energy is that of other devices.
        steps_s: Those of the bounds at which nothing was sampled, but tasks began or ended.
        meters: Names of the meters that it comes from. Energies of different meters are not comparable.
    """

    times_s: Array
    energy_j: Array
    changes_s: Array = field(default_factory=_nothing)
    steps_s: Array = field(default_factory=_nothing)
    meters: tuple[str, ...] = ()


EMPTY = Intervals(np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class DeviceEnergy:
    """The energy of one device in a window.

    Attributes:
        segments: Where it was measured, in order of time. They do not overlap.
        first_s: Its first sample, of those in the window and one on either side.
        last_s: Its last one.
        was_added: Whether the node was measured before the device was, so that it counts only from then on.
        is_gone: Whether it is no longer measured although the node is, so that it counts only until then.
    """

    segments: tuple[Intervals, ...]
    first_s: float
    last_s: float
    was_added: bool = False
    is_gone: bool = False


def sum_devices(devices: Sequence[DeviceEnergy]) -> Intervals:
    """Return the energy of a node, for the time in which all its devices that should be measured are.

    A device that was added or is gone affects no other device: it contributes while it is there. Where no device is
    measured, and where one is whose energy is unknown, the energy of the node is unknown.
    """
    segments = [segment for device in devices for segment in device.segments]
    if not segments:
        return EMPTY
    if len(devices) == len(segments) == 1:
        return segments[0]  # as on most nodes: no other device appears, or has other times
    start_s = max((device.first_s for device in devices if not device.was_added), default=-np.inf)
    end_s = min((device.last_s for device in devices if not device.is_gone), default=np.inf)
    bounds_s = np.unique(np.concatenate([segment.times_s for segment in segments]))
    bounds_s = bounds_s[(bounds_s >= start_s) & (bounds_s <= end_s)]
    if len(bounds_s) < 2:
        return EMPTY
    energy_j, measured = np.zeros(len(bounds_s) - 1), np.zeros(len(bounds_s) - 1, dtype=bool)
    for segment in segments:
        inside = (bounds_s[:-1] >= segment.times_s[0]) & (bounds_s[1:] <= segment.times_s[-1])
        energy_j[inside] += _spread(segment, bounds_s)[inside]
        measured |= inside
    edges_s = np.concatenate([segment.times_s[[0, -1]] for segment in segments])
    changes_s = np.unique(edges_s[(edges_s > bounds_s[0]) & (edges_s < bounds_s[-1])])
    steps_s = np.intersect1d(bounds_s, np.concatenate([segment.steps_s for segment in segments]))
    return Intervals(bounds_s, np.where(measured, energy_j, np.nan), changes_s, steps_s)


def _spread(segment: Intervals, bounds_s: Array) -> Array:
    """Return the joules of one device per common interval, assuming constant power between its own samples."""
    power_w = segment.energy_j / np.diff(segment.times_s)
    own = np.searchsorted(segment.times_s, bounds_s[:-1], side="right") - 1
    return np.asarray(power_w[np.clip(own, 0, len(power_w) - 1)] * np.diff(bounds_s))
