"""Means and 95 % intervals over seeds, and paired ratios of two policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, sqrt
from statistics import NormalDist, fmean, stdev

# Student's t, 97.5 % quantile for 1 to 30 degrees of freedom; any table of the distribution has them.
T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        mean: its mean, or the geometric mean for a ratio.
        low: lower end of the 95 % interval of that mean; None when one seed is all there is.
        high: upper end.
    """

    mean: float
    low: float | None = None
    high: float | None = None


def quantile_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Above the table it is the expansion in 1/freedom of Abramowitz and Stegun 26.7.5, right to four decimals there.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom: an interval needs two seeds or more")
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Return mean and interval; None when there are no values or one of them is undefined.

    One seed without the figure, such as joules per task in time where none was in time, makes the mean undefined:
    leaving the seed out would flatter.
    """
    known = [value for value in values if value is not None and isfinite(value)]
    if not known or len(known) < len(values):
        return None
    mean = fmean(known)
    if len(known) == 1:
        return Estimate(mean)
    half = quantile_t(len(known) - 1) * stdev(known) / sqrt(len(known))
    return Estimate(mean, mean - half, mean + half)


def paired_ratio(values: Sequence[float | None], others: Sequence[float | None]) -> Estimate | None:
    """Return how many times `others` the `values` are, paired by seed, on the log scale.

    The mean is geometric, so that the ratio the other way round is its inverse. None when a value is not positive.
    """
    logs: list[float | None] = []
    for value, other in zip(values, others, strict=True):
        if value is None or other is None or value <= 0 or other <= 0:
            return None
        logs.append(log(value / other))
    found = estimate(logs)
    if found is None:
        return None
    if found.low is None or found.high is None:
        return Estimate(exp(found.mean))
    return Estimate(exp(found.mean), _exp(found.low), _exp(found.high))


def _exp(value: float) -> float | None:
    # Two seeds that disagree can give an interval beyond what a float holds.
    return exp(value) if value < 700 else None
