"""What a comparison shows, in words, and how sure it is.

All schedulers got the same n requests. With `d_i` = 1 where only ours met the deadline of request i, -1 where only the
other one did, and 0 elsewhere, `sum d_i` deadlines are won, with a standard error of `sqrt(n var(d))`. The interval is
for other requests of the same kind at the same load. It is somewhat too narrow, since requests that arrive together
share their fate; runs of the simulator with several seeds do not have this fault.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import pvariance

from perllm_lab.report.results import FleetEnergy, RequestResult

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
    return [f"{ours} {_compare(ours, other, runs, fleets)}" for other in runs if other != ours]


def _compare(
    ours: str, other: str, runs: Mapping[str, Sequence[RequestResult]], fleets: Mapping[str, FleetEnergy]
) -> str:
    differences = [one.met - two.met for one, two in zip(runs[ours], runs[other], strict=True)]
    won, margin = sum(differences), NORMAL_95 * sqrt(len(differences) * pvariance(differences))
    interval = f"{won - margin:+.0f} to {won + margin:+.0f}"
    deadlines = _describe_deadlines(won, margin, other, interval)
    window_s = max(fleet.window_s for fleet in fleets.values())
    our_j, other_j = (_energy_per_hit(runs[name], fleets[name].over(window_s)) for name in (ours, other))
    if our_j is None or other_j is None:
        return deadlines
    saved = 1.0 - our_j / other_j
    return f"{deadlines}, and used {abs(saved):.0%} {'less' if saved >= 0 else 'more'} energy per task in time"


def _describe_deadlines(won: int, margin: float, other: str, interval: str) -> str:
    if abs(won) <= margin:
        return f"met as many deadlines as {other}, as far as one run can show ({won:+d}, 95 % interval {interval})"
    return f"met {abs(won)} deadlines {'more' if won > 0 else 'fewer'} than {other} (95 % interval {interval})"


def _energy_per_hit(runs: Sequence[RequestResult], energy_j: float) -> float | None:
    met = sum(run.met for run in runs)
    return energy_j / met if met else None
