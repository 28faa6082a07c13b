"""What a GPU's counter of energy and its gauges of power said, and what follows from it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


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
    """Return the mean power by the counter, from its first to its last step inside the window.

    The counter moves in steps, so reading it at the ends of the window would be wrong by up to a step at either end.
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


def integrate_gauge_j(time_s: FloatArray, power_w: FloatArray, start_s: float, end_s: float) -> float:
    """Return the joules of a window by trapezoids between samples of a gauge."""
    inside = (time_s > start_s) & (time_s < end_s)
    bounds = np.concatenate([[start_s], time_s[inside], [end_s]])
    return float(np.trapezoid(np.interp(bounds, time_s, power_w), bounds))


def compare_gauge(
    readings: Readings, gauge_w: FloatArray, window: tuple[float, float], *, every_s: float, phases: int = 50
) -> FloatArray:
    """Return by how much a gauge that is scraped differs from the counter, over one window.

    Args:
        readings: They cover the window, and a scrape's interval before and after it.
        gauge_w: One of the gauges of the readings.
        window: Its start and its end.
        every_s: Interval of the scrapes.
        phases: Number of ways in which the scrapes may fall, evenly spread over an interval.

    Returns:
        Energy by trapezoids over that by the counter, minus one, shape (phases,).
    """
    start_s, end_s = window
    true_j = count_energy_j(readings, start_s, end_s)
    energies = []
    for phase in range(phases):
        first_s = start_s - (1.0 + phase / phases) * every_s
        scraped_s = np.arange(first_s, end_s + 2.0 * every_s, every_s)
        # A scrape sees the reading before it.
        seen = np.clip(np.searchsorted(readings.time_s, scraped_s, side="right") - 1, 0, None)
        energies.append(integrate_gauge_j(scraped_s, gauge_w[seen], start_s, end_s))
    return np.asarray(energies) / true_j - 1.0


def find_rise_s(time_s: FloatArray, power_w: FloatArray, start_s: float, *, share: float) -> float:
    """Return how long after a step at `start_s` power has made a share of its way to its median at the end.

    Args:
        time_s: Of the readings; they end while the step still lasts.
        power_w: Same shape.
        start_s: When the load began or ended.
        share: Of the difference between the power before and after the step.
    """
    before_w = float(np.median(power_w[time_s < start_s][-20:]))
    after_w = float(np.median(power_w[-20:]))
    made = (power_w - before_w) / (after_w - before_w)
    reached = np.flatnonzero((time_s >= start_s) & (made >= share))
    return float(time_s[reached[0]] - start_s) if reached.size else float("nan")
