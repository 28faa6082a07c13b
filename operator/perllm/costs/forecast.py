"""Forecasts what a tariff with a query will be, from what it was in the last days.

Notation
    x       the present figure
    m(h)    mean figure of hour h of the day, in local time, over the days that are known
    r       a past figure less the mean of its hour; s(h) their standard deviation, from the other days
    rho     correlation of r with itself an hour later

    forecast   f(t) = m(h(t)) + rho^k (x - m(h(now)))            k hours from now
    deviation  d(t) = s(h(t)) sqrt(1 - rho^(2 k))                that of an autoregressive process of first order

So what is unusual now is expected to fade, and the deviation grows from none to that of the hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

import numpy as np

from perllm.policy.problem import FloatArray, IntArray

HOUR_S = 3600.0
HOURS = 24

MAX_CORRELATION = 0.98
"""With more, what is unusual now would be expected to last for days."""

USUAL_DAYS = 7.0
"""The spread of all hours counts as much as so many days of one hour."""


@dataclass(frozen=True, slots=True)
class HourPattern:
    """The pattern of a day in past figures.

    Attributes:
        means: of each hour of the day, shape (24,).
        spreads: standard deviation of each hour, shape (24,).
        correlation: rho.
        zone: the time zone of the hours.
    """

    means: FloatArray
    spreads: FloatArray
    correlation: float
    zone: tzinfo

    def forecast(self, present: float, times_s: Sequence[float]) -> tuple[FloatArray, FloatArray]:
        """Return what is expected at Unix times, ascending from now on, and the standard deviations; shapes (n,)."""
        hours = find_hours(times_s, self.zone)
        fading = self.correlation ** ((np.asarray(times_s) - times_s[0]) / HOUR_S)
        deviations: FloatArray = self.spreads[hours] * np.sqrt(1.0 - fading**2)
        return self.means[hours] + fading * (present - self.means[hours[0]]), deviations


def find_hours(times_s: Sequence[float], zone: tzinfo) -> IntArray:
    """Return the local hour of the day of each Unix time, shape (n,)."""
    return np.array([datetime.fromtimestamp(time_s, zone).hour for time_s in times_s], dtype=np.int64)


def find_pattern(samples: Sequence[tuple[float, float]], zone: tzinfo) -> HourPattern:
    """Return the pattern of samples, pairs of Unix time and figure; hours that were never seen have the mean of all.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("a pattern needs at least one sample")
    times_s, values = np.array(samples, dtype=np.float64).T
    by_hour = _average(times_s, values)
    hours, figures = find_hours(list(by_hour), zone), np.array(list(by_hour.values()))
    counts = np.bincount(hours, minlength=HOURS)
    means = np.where(counts > 0, np.bincount(hours, figures, HOURS) / np.maximum(counts, 1), figures.mean())
    residuals = figures - means[hours]
    free = np.maximum(counts - 1, 0)
    squares = np.bincount(hours, residuals**2, HOURS)
    # A few days say little of the spread of an hour, so all hours do in part; and a mean of few days is uncertain too.
    usual = squares.sum() / free.sum() if free.any() else figures.var()
    variances = (squares + USUAL_DAYS * usual) / (free + USUAL_DAYS)
    spreads = np.sqrt(variances * (1.0 + 1.0 / np.maximum(counts, 1)))
    return HourPattern(means, spreads, _correlate(np.array(list(by_hour)), residuals), zone)


def _average(times_s: FloatArray, values: FloatArray) -> dict[float, float]:
    """Return the mean figure of each hour, by the Unix time of its begin."""
    begins, place = np.unique(times_s // HOUR_S * HOUR_S, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return dict(zip(begins.tolist(), means.tolist(), strict=True))


def _correlate(times_s: FloatArray, residuals: FloatArray) -> float:
    """Return by how much a residual is like that of the hour before; 0 where too little is known."""
    follows = np.diff(times_s) == HOUR_S
    before, after = residuals[:-1][follows], residuals[1:][follows]
    scale = float(np.sqrt((before**2).sum() * (after**2).sum()))
    return min(max(float((before * after).sum()) / scale, 0.0), MAX_CORRELATION) if scale > 0 else 0.0
