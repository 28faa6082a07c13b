"""The accuracy of the forecasts of a run. A scheduler that predicts nothing leaves nan, which gives None here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perllm_lab.simulator.result import Fate, Floats, TaskTable

BINS = 10

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many outcomes were within a 90 % interval; 5 % on either side would be right.

    Attributes:
        inside: share of outcomes in the interval.
        below: share below its lower end.
        above: share above its upper end.
    """

    inside: float
    below: float
    above: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Tasks with about the same predicted chance to be in time.

    Attributes:
        chance: mean of the predicted chances.
        hit_share: share that was in time.
        tasks: how many.
    """

    chance: float
    hit_share: float
    tasks: int


@dataclass(frozen=True, slots=True)
class ForecastMeasures:
    """Forecasts against what happened; of completed tasks, but `brier` and `reliability` of all that were placed.

    A task that was ended has no latency. Where tasks are ended at their deadline, the longest latencies are missing
    and `above` of a coverage is too small.

    Attributes:
        energy_error: median of |forecast - true| / true of the energy, given the realised tokens.
        latency_error: the same of the latency.
        given_coverage: of the interval of the latency, given the realised tokens.
        latency_coverage: of the interval of the latency, before the length was known.
        brier: mean square of the chance to be in time less the outcome (0 or 1); 0.25 is what a coin gets.
        reliability: by tenths of the chance, empty ones left out.
    """

    energy_error: float | None
    latency_error: float | None
    given_coverage: Coverage | None
    latency_coverage: Coverage | None
    brier: float | None
    reliability: tuple[Reliability, ...]


def measure_forecasts(tasks: TaskTable, judged: Mask) -> ForecastMeasures:
    """Compare the forecasts of the judged tasks with what happened."""
    completed = judged & np.isin(tasks.fate, (Fate.IN_TIME, Fate.LATE))
    latency_s = (tasks.finished_s - tasks.decided_s)[completed]
    energy_j = (tasks.energy_j + np.nan_to_num(tasks.transmission_j))[completed]

    def forecast(name: str) -> Floats:
        return tasks.forecast[name][completed] if name in tasks.forecast else np.full(latency_s.size, np.nan)

    chance = tasks.forecast.get("hit_chance", np.full(judged.size, np.nan))
    known = judged & np.isfinite(chance)
    hit = (tasks.fate == Fate.IN_TIME)[known].astype(np.float64)
    return ForecastMeasures(
        energy_error=_median_error(forecast("given_energy_j"), energy_j),
        latency_error=_median_error(forecast("given_latency_s"), latency_s),
        given_coverage=_coverage(forecast("given_low_s"), forecast("given_high_s"), latency_s),
        latency_coverage=_coverage(forecast("latency_low_s"), forecast("latency_high_s"), latency_s),
        brier=float(np.mean((chance[known] - hit) ** 2)) if hit.size else None,
        reliability=_reliability(chance[known], hit),
    )


def _median_error(expected: Floats, true: Floats) -> float | None:
    known = np.isfinite(expected) & (true > 0)
    if not known.any():
        return None
    return float(np.median(np.abs(expected[known] - true[known]) / true[known]))


def _coverage(low: Floats, high: Floats, true: Floats) -> Coverage | None:
    # The high end may be infinite; nan is what was never predicted.
    known = ~np.isnan(low) & ~np.isnan(high) & np.isfinite(true)
    if not known.any():
        return None
    below = float(np.mean(true[known] < low[known]))
    above = float(np.mean(true[known] > high[known]))
    return Coverage(inside=1.0 - below - above, below=below, above=above)


def _reliability(chance: Floats, hit: Floats) -> tuple[Reliability, ...]:
    bins = np.clip((chance * BINS).astype(int), 0, BINS - 1)
    return tuple(
        Reliability(float(chance[bins == at].mean()), float(hit[bins == at].mean()), int((bins == at).sum()))
        for at in range(BINS)
        if (bins == at).any()
    )
