"""What a GPU's counter of energy and its gauges of power said, and what follows from it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SETTLE_S = 1.1
"""After this time all meters have forgotten a load: a gauge's mean of a second, and a step of a tenth."""


class Reading(NamedTuple):
    """One look at a GPU.

    Attributes:
        time_s: When, by the clock of the measurement.
        energy_j: Counter of energy.
        average_w: Gauge of power that most exporters read; since Ampere a mean of about one second.
        instant_w: Gauge of power without that mean.
        clock_mhz: Of the multiprocessors.
    """

    time_s: float
    energy_j: float
    average_w: float
    instant_w: float
    clock_mhz: float


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings in the order of time; each array has the shape (readings,)."""

    time_s: FloatArray
    energy_j: FloatArray
    average_w: FloatArray
    instant_w: FloatArray
    clock_mhz: FloatArray

    @classmethod
    def of(cls, rows: list[Reading]) -> "Readings":
        """Turn single readings into arrays."""
        return cls(*np.asarray(rows, dtype=np.float64).reshape(-1, len(Reading._fields)).T)

    def between(self, start_s: float, end_s: float) -> "Readings":
        """Return those of a window."""
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        return Readings(*(getattr(self, name)[inside] for name in Reading._fields))


def find_changes(values: FloatArray) -> NDArray[np.intp]:
    """Return the places at which a value differs from the one before."""
    return np.flatnonzero(np.diff(values)) + 1


def find_interval_s(time_s: FloatArray, values: FloatArray) -> float:
    """Return the median time between two changes of a value; nan with fewer than two changes."""
    changed_s = time_s[find_changes(values)]
    return float(np.median(np.diff(changed_s))) if changed_s.size > 1 else float("nan")


def mean_power_w(readings: Readings, start_s: float, end_s: float) -> float:
    """Return the mean power by the counter, from its first to its last step inside the window; nan without two steps.

    Read at the ends of the window, the counter would be up to a step behind at either end.
    """
    window = readings.between(start_s, end_s)
    steps = find_changes(window.energy_j)
    if steps.size < 2:
        return float("nan")
    first, last = steps[0], steps[-1]
    return float((window.energy_j[last] - window.energy_j[first]) / (window.time_s[last] - window.time_s[first]))


def count_energy_j(readings: Readings, start_s: float, end_s: float) -> float:
    """Return the joules of a window by the counter, taken to grow evenly between its steps."""
    steps = find_changes(readings.energy_j)
    begin_j, end_j = np.interp((start_s, end_s), readings.time_s[steps], readings.energy_j[steps])
    return float(end_j - begin_j)


def count_run_j(readings: Readings, window: tuple[float, float], idle_w: float) -> float:
    """Return the joules of a run on an otherwise idle GPU, by a counter that may be late to show its end."""
    start_s, end_s = window
    return count_energy_j(readings, start_s, end_s + SETTLE_S) - idle_w * SETTLE_S


def integrate_gauge_j(time_s: FloatArray, power_w: FloatArray, start_s: float, end_s: float) -> float:
    """Return the joules of a window by trapezoids between samples of a gauge."""
    inside = (time_s > start_s) & (time_s < end_s)
    bounds = np.concatenate([[start_s], time_s[inside], [end_s]])
    return float(np.trapezoid(np.interp(bounds, time_s, power_w), bounds))


def find_rise_s(time_s: FloatArray, power_w: FloatArray, start_s: float, *, share: float) -> float:
    """Return how long after the start of a load a gauge has made a share of its way to its last values.

    Args:
        time_s: Of the readings, which end while the load lasts.
        power_w: Same shape.
        start_s: When the load began.
        share: Of the difference that the load makes.
    """
    before_w, after_w = np.median(power_w[time_s < start_s]), np.median(power_w[-20:])
    reached = np.flatnonzero((time_s >= start_s) & (power_w - before_w >= share * (after_w - before_w)))
    return float(time_s[reached[0]] - start_s) if reached.size else float("nan")
