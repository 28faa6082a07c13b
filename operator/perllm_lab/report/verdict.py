"""What a comparison shows, in words, and how sure it is.

All schedulers got the same n requests, so both intervals are those of paired differences `d_i`, one for each request:
`sum d_i` has a standard error of `sqrt(n var(d))`.

Deadlines: `d_i` is 1 where only ours met the deadline of request i, -1 where only the other one did, and 0 elsewhere.

Energy per task in time, `E / m`, of ours over that of the other: the logarithm of the ratio, to first order, with
`d_i = (e_i / E - h_i / m)` of ours less that of the other (the delta method). `e_i` is the energy of request i, `h_i`
is 1 if it was in time. What the fleet uses beyond its requests, such as idle power, counts in `E` and does not vary.

The intervals are for other requests of the same kind at the same load. They are somewhat too narrow, since requests
that arrive together share their fate; runs of the simulator with several seeds do not have this fault.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from statistics import pvariance

from perllm_lab.report.results import FleetEnergy, RequestResult
from perllm_lab.report.statistics import Estimate

NORMAL_95 = 1.96


def describe_verdict(
    ours: str, runs: Mapping[str, Sequence[RequestResult]], fleets: Mapping[str, FleetEnergy]
) -> list[str]:
    """Return a sentence for each scheduler that ours is compared with.

    Args:
        ours: name of our scheduler.
        runs: results of every scheduler, in the same order of requests.
        fleets: energy of all nodes under every scheduler.
    """
    window_s = max(fleet.window_s for fleet in fleets.values())
    energy_j = {name: fleet.over(window_s) for name, fleet in fleets.items()}
    sentences = []
    for other in runs:
        if other != ours:
            won = count_won(runs[ours], runs[other])
            ratio = compare_energy(runs[ours], energy_j[ours], runs[other], energy_j[other])
            sentences.append(f"{ours} {_describe_deadlines(won, other)}{_describe_energy(ratio)}.")
    return sentences


def count_won(ours: Sequence[RequestResult], others: Sequence[RequestResult]) -> Estimate:
    """Return how many more deadlines our runs met than the others', with the interval."""
    differences = [one.met - two.met for one, two in zip(ours, others, strict=True)]
    won, margin = sum(differences), _find_margin(differences)
    return Estimate(won, won - margin, won + margin)


def compare_energy(
    ours: Sequence[RequestResult], our_j: float, others: Sequence[RequestResult], other_j: float
) -> Estimate | None:
    """Return the ratio of our energy per task in time to that of others, with the interval; None if it is not defined.

    Args:
        ours: our results.
        our_j: joules of the whole fleet in our run.
        others: results of the others, in the same order of requests.
        other_j: joules of the whole fleet in their run.
    """
    our_met, other_met = (sum(run.met for run in runs) for runs in (ours, others))
    if not our_met or not other_met:
        return None
    middle = log(our_j / our_met) - log(other_j / other_met)
    margin = _find_margin(
        [
            _deviate(one, our_j, our_met) - _deviate(two, other_j, other_met)
            for one, two in zip(ours, others, strict=True)
        ]
    )
    return Estimate(exp(middle), exp(middle - margin), exp(middle + margin))


def _deviate(run: RequestResult, energy_j: float, met: int) -> float:
    """Return what a request adds to the logarithm of its run's energy per task in time, to first order."""
    return (run.energy_j or 0.0) / energy_j - run.met / met


def _find_margin(differences: Sequence[float]) -> float:
    return NORMAL_95 * sqrt(len(differences) * pvariance(differences))


def _describe_deadlines(won: Estimate, other: str) -> str:
    low, high = won.low or 0.0, won.high or 0.0
    interval = f"{low:+.0f} to {high:+.0f}"
    if low <= 0.0 <= high:
        return (
            f"met as many deadlines as {other}, as far as one run can show ({won.mean:+.0f}; 95 % interval {interval})"
        )
    more = "more" if won.mean > 0 else "fewer"
    return f"met {abs(won.mean):.0f} deadlines {more} than {other} (95 % interval {interval})"


def _describe_energy(ratio: Estimate | None) -> str:
    if ratio is None:
        return ""
    change, low, high = ((value or 0.0) - 1.0 for value in (ratio.mean, ratio.low, ratio.high))
    interval = f"{low:+.0%} to {high:+.0%}"
    if low <= 0.0 <= high:
        return f", and used as much energy per task in time, as far as one run can show ({change:+.0%}; {interval})"
    return f", and used {abs(change):.0%} {'less' if change < 0 else 'more'} energy per task in time ({interval})"
