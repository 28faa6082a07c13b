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
    sent_late_s: Sequence[float], answered_in_s: Sequence[float], nodes_late_s: Sequence[float]
) -> Lateness:
    """Return how late the parts of a lab were.

    Args:
        sent_late_s: by how much requests were sent too late.
        answered_in_s: after how long the API server had created them.
        nodes_late_s: by how much the simulated nodes did their work too late.
    """
    found = {
        "requests were sent": sent_late_s,
        "the API server answered": answered_in_s,
        "simulated nodes worked": nodes_late_s,
    }
    return Lateness({what: float(np.quantile(values, QUANTILE)) for what, values in found.items() if values})


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
