"""The energy of one device, from its counter, else from the integral of its power."""

from collections.abc import Iterator

import numpy as np

from perllm.energy.intervals import Array, Intervals
from perllm.energy.series import TimeSeries

_MIN_DROPS = 3
_MIXED_SHARE = 0.25


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


def integrate_power(series: TimeSeries, max_power_w: float, absent_after_s: float) -> tuple[Intervals, ...]:
    """Return the energy between the samples of a power gauge by the trapezoidal rule, over their true times.

    Samples below 0 and above ``max_power_w`` are left out. The device counts as absent where samples are further apart
    than ``absent_after_s``.
    """
    times_s, power_w = np.array(series.times_s), np.array(series.values)
    possible = (power_w >= 0) & (power_w <= max_power_w)
    times_s, power_w = times_s[possible], power_w[possible]
    return tuple(
        Intervals(own_s, (own_w[1:] + own_w[:-1]) / 2 * np.diff(own_s))
        for own_s, own_w in _split(times_s, power_w, absent_after_s)
        if len(own_s) > 1
    )


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
