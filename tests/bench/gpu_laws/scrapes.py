"""How wrong the energy of a run is when meters are only seen at scrapes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.gpu_laws.readings import (
    SETTLE_S,
    FloatArray,
    Readings,
    count_energy_j,
    count_run_j,
    integrate_gauge_j,
    mean_power_w,
)

INTERVALS_S = (1.0, 5.0, 15.0)
SOURCES = ("energy_j", "average_w", "instant_w")
PHASES = 50
"""Ways in which scrapes may fall, evenly spread over an interval."""

BEFORE_S = 3.0
"""An idle GPU is measured this long before a run."""

Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors over all phases of the scrapes.

    Attributes:
        mean: With its sign: what remains in the sum over many runs.
        median_size: Without it.
        p90_size: Likewise.
    """

    mean: float
    median_size: float
    p90_size: float

    @classmethod
    def of(cls, errors: FloatArray) -> "Errors":
        """Summarise errors of any number."""
        sizes = abs(errors)
        return cls(float(errors.mean()), float(np.median(sizes)), float(np.quantile(sizes, 0.9)))


def describe_run(readings: Readings, window: Window) -> dict[str, Any]:
    """Return what a run took, and how wrong that is by scrapes of each source and interval.

    Args:
        readings: They cover twice the longest interval before and after the run.
        window: Start and end of the run, with an idle GPU before and after it.
    """
    start_s, end_s = window
    idle_w = mean_power_w(readings, start_s - BEFORE_S, start_s)
    run_j = count_run_j(readings, window, idle_w)
    late_j = run_j - count_energy_j(readings, start_s, end_s)
    return {
        "window_s": window,
        "length_s": end_s - start_s,
        "idle_w": idle_w,
        "run_j": run_j,
        "counter_late_s": late_j / (run_j / (end_s - start_s) - idle_w),
        "errors_of_window": _tabulate(readings, window, run_j, idle_w=None),
        "errors_less_idle": _tabulate(readings, window, run_j, idle_w=idle_w),
    }


def describe_window(readings: Readings, window: Window) -> dict[str, Any]:
    """Return how wrong the energy of a long window is, with all that runs or rests in it."""
    energy_j = count_energy_j(readings, *window)
    return {
        "length_s": window[1] - window[0],
        "energy_j": energy_j,
        "errors_of_window": _tabulate(readings, window, energy_j, idle_w=None),
    }


def estimate_j(
    readings: Readings, source: str, window: Window, *, every_s: float, idle_w: float | None = None
) -> FloatArray:
    """Return the energy of a window as it appears by scrapes, one for each of their phases, shape (phases,).

    Args:
        readings: All that could have been scraped.
        source: `energy_j`, taken to grow evenly between scrapes, or one of the gauges, by trapezoids.
        window: Its start and its end.
        every_s: Interval of the scrapes.
        idle_w: If given, energy is that from the last scrape before the window to the first one `SETTLE_S` after it,
            less what an idle GPU draws in the time that was added.
    """
    start_s, end_s = window
    energies = []
    for phase in range(PHASES):
        scraped_s = np.arange(start_s - (1.0 + phase / PHASES) * every_s, end_s + 2.0 * every_s + SETTLE_S, every_s)
        # A scrape sees the reading before it.
        seen = np.clip(np.searchsorted(readings.time_s, scraped_s, side="right") - 1, 0, None)
        values = getattr(readings, source)[seen]
        if idle_w is None:
            energies.append(_measure_j(source, scraped_s, values, start_s, end_s))
            continue
        first_s, last_s = scraped_s[scraped_s <= start_s][-1], scraped_s[scraped_s >= end_s + SETTLE_S][0]
        added_s = (last_s - first_s) - (end_s - start_s)
        energies.append(_measure_j(source, scraped_s, values, first_s, last_s) - idle_w * added_s)
    return np.asarray(energies)


def _measure_j(source: str, time_s: FloatArray, values: FloatArray, start_s: float, end_s: float) -> float:
    if source != "energy_j":
        return integrate_gauge_j(time_s, values, start_s, end_s)
    begin_j, end_j = np.interp((start_s, end_s), time_s, values)
    return float(end_j - begin_j)


def _tabulate(
    readings: Readings, window: Window, true_j: float, *, idle_w: float | None
) -> Mapping[str, Mapping[str, Any]]:
    def compare(source: str, every_s: float) -> dict[str, float]:
        return asdict(Errors.of(estimate_j(readings, source, window, every_s=every_s, idle_w=idle_w) / true_j - 1.0))

    return {source: {f"{every_s:g} s": compare(source, every_s) for every_s in INTERVALS_S} for source in SOURCES}
