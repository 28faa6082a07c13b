"""Whether a machine was fast enough: a starved control plane makes all schedulers look bad, but not equally."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from perllm_lab.workload.requests import Request

TOLERATED_SHARE = 0.05
"""Of the median deadline: what is later than that changes which deadlines are met."""

QUANTILE = 0.95
SPEEDS = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late each part of a lab was.

    Attributes:
        parts: 95th percentile in real seconds, by what was late, in words.
    """

    parts: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """What was latest, and its seconds."""
        return max(self.parts.items(), key=lambda part: part[1])


def measure_lateness(
    sent_late_s: Sequence[float],
    answered_in_s: Sequence[float],
    nodes_late_s: Sequence[float],
    *,
    operator_late: Mapping[float, float],
) -> Lateness:
    """Return how late the parts of a lab were.

    Args:
        sent_late_s: by how much requests were sent too late.
        answered_in_s: after how long the API server had created them.
        nodes_late_s: by how much the simulated nodes did their work too late.
        operator_late: how often the operator's event loop was late by no more than so many seconds.
    """
    found = {
        "requests were sent": sent_late_s,
        "the API server answered": answered_in_s,
        "simulated nodes worked": nodes_late_s,
    }
    parts = {what: float(np.quantile(values, QUANTILE)) for what, values in found.items() if values}
    if operator_late:
        parts["the operator worked"] = find_quantile_s(operator_late)
    return Lateness(parts)


def find_quantile_s(counts: Mapping[float, float]) -> float:
    """Return the 95th percentile of a histogram, linear within its bucket; within the last one, where that begins.

    Args:
        counts: how many values are no greater than each bound in seconds; the last bound is infinite.
    """
    bounds_s = sorted(counts)
    wanted = QUANTILE * counts[bounds_s[-1]]
    below_s, below = 0.0, 0.0
    for bound_s in bounds_s[:-1]:
        if counts[bound_s] >= wanted:
            within = max(counts[bound_s] - below, 1.0)
            return below_s + (bound_s - below_s) * (wanted - below) / within
        below_s, below = bound_s, counts[bound_s]
    return below_s


def find_shortage(lateness: Lateness, requests: Sequence[Request], speed: float) -> str | None:
    """Return why the results of a replay are not worth showing, and what to do; None if they are."""
    what, late_s = lateness.worst
    deadline_s = median(one.deadline_s for one in requests) / speed
    if late_s <= TOLERATED_SHARE * deadline_s:
        return None
    fitting = speed * TOLERATED_SHARE * deadline_s / late_s
    slower = next((one for one in SPEEDS if one <= fitting and one < speed), SPEEDS[-1])
    return (
        f"this machine is too slow at --speed {speed:g}: {what} {late_s:.2f} s late (95th percentile), and half of the "
        f"deadlines are shorter than {deadline_s:.1f} s. A comparison would show the machine, not the schedulers. "
        f"Try --speed {slower:g}, or end what else runs here"
    )
