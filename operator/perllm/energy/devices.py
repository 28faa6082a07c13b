"""The energy of one device, from its counter, else from the integral of its power."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perllm.energy.intervals import Array, Intervals
from perllm.energy.presence import NO_TASKS, Presence, find_power_w, learn_powers_w
from perllm.energy.series import TimeSeries

_MIN_DROPS = 3
_MIXED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What can be true of a device.

    Attributes:
        max_power_w: It cannot draw more, so a larger figure is an error.
        absent_after_s: It is absent where two samples of its power are further apart.
    """

    max_power_w: float
    absent_after_s: float


def is_mixed(values: Array) -> bool:
    """Whether the samples are of several counters under one name.

    Interleaved counters fall at every other sample or so; a counter that is reset falls once.
    """
    drops = np.count_nonzero(np.diff(values) < 0)
    return bool(drops >= _MIN_DROPS and drops >= _MIXED_SHARE * (len(values) - 1))


def measure_counter(series: TimeSeries, max_power_w: float) -> Intervals:
    """Return the energy between the samples of a counter, of which there must be two.

    It is unknown where the counter was reset or rose faster than ``max_power_w``, and everywhere if the samples are of
    several counters.
    """
    times_s, values = np.array(series.times_s), np.array(series.values)
    energy_j = np.diff(values)
    unknown = (energy_j < 0) | (energy_j > max_power_w * np.diff(times_s)) | is_mixed(values)
    return Intervals(times_s, np.where(unknown, np.nan, energy_j))


def integrate_power(
    gauge: TimeSeries, window_s: tuple[float, float], limits: Limits, presence: Presence = NO_TASKS
) -> tuple[Intervals, ...]:
    """Return the energy between the samples of a power gauge that cover a window, over their true times.

    It is that of the trapezoidal rule, except where tasks begin or end between two samples. There the power steps at
    these moments: it is that of a sample as long as the same tasks are present as then, and in between the mean of all
    samples that were taken with as many tasks.

    Impossible samples are left out. The device counts as absent where samples are too far apart.
    """
    known_w = learn_powers_w(*_read_possible(gauge, limits), presence) if len(presence.changes_s) else {}
    return tuple(
        _integrate(own_s, own_w, presence, known_w)
        for own_s, own_w in _split(*_read_possible(gauge.select(*window_s), limits), limits.absent_after_s)
        if len(own_s) > 1
    )


def _read_possible(gauge: TimeSeries, limits: Limits) -> tuple[Array, Array]:
    times_s, power_w = np.array(gauge.times_s), np.array(gauge.values)
    possible = (power_w >= 0) & (power_w <= limits.max_power_w)
    return times_s[possible], power_w[possible]


def _integrate(times_s: Array, power_w: Array, presence: Presence, known_w: dict[int, float]) -> Intervals:
    changes_s = presence.between(times_s[0], times_s[-1])
    bounds_s = np.union1d(times_s, changes_s)
    starts_s, ends_s = bounds_s[:-1], bounds_s[1:]
    before, after = np.searchsorted(times_s, starts_s, side="right") - 1, np.searchsorted(times_s, ends_s)
    begins, ends = times_s[before] == starts_s, times_s[after] == ends_s
    mean_w = (power_w[before] + power_w[after]) / 2
    level_w = np.where(begins, np.where(ends, mean_w, power_w[before]), power_w[after])
    for index in np.flatnonzero(~begins & ~ends):
        level_w[index] = find_power_w(known_w, int(presence.at(starts_s[index : index + 1])[0]))
    return Intervals(bounds_s, level_w * np.diff(bounds_s), steps_s=np.setdiff1d(changes_s, times_s))


def fill_gaps(counter: Intervals, gauge: tuple[Intervals, ...]) -> Intervals:
    """Return the counter's energy, with the integral of the power where it is unknown and the gauge covers it."""
    energy_j = counter.energy_j.copy()
    for index in np.flatnonzero(np.isnan(energy_j)):
        start_s, end_s = counter.times_s[index : index + 2]
        for segment in gauge:
            if segment.times_s[0] <= start_s and end_s <= segment.times_s[-1]:
                total_j = np.concatenate([[0.0], np.cumsum(segment.energy_j)])
                energy_j[index] = np.diff(np.interp([start_s, end_s], segment.times_s, total_j))[0]
    return Intervals(counter.times_s, energy_j)


def _split(times_s: Array, values: Array, absent_after_s: float) -> Iterator[tuple[Array, Array]]:
    at = np.flatnonzero(np.diff(times_s) > absent_after_s) + 1
    return zip(np.split(times_s, at), np.split(values, at), strict=True)
