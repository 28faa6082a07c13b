"""What PerLLM saved in a period, from gauges that sum it up since each start of the operator."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from perllm.reporting.increases import Labels, Past, find_at_start, identify

ANY_COUNTER = "perllm_outcomes_learned"
"""Without labels of its own, and created when the operator starts."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A sum with half the width of its 90 % interval; None while too few tasks are known."""

    total: float
    half: float | None

    @property
    def is_certain(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.half is not None and abs(self.total) > self.half


@dataclass(frozen=True, slots=True)
class _Stand:
    """The gauges of one process at one time."""

    total: float
    high: float | None

    @property
    def half(self) -> float | None:
        return None if self.high is None else self.high - self.total


async def read_saving(past: Past, unit: str) -> Saving | None:
    """Return what was saved in a period, joules or deadlines; None if nothing was compared.

    The tasks of a process that has not compared enough of them for an interval are left out if there are others.

    Raises:
        TelemetryError, ApiError: Prometheus does not answer.
    """
    gauges = await past.read_values(f"perllm_saved_{unit}")
    created_s = await past.read_created(ANY_COUNTER)
    start_s = past.period.start_s
    before: dict[frozenset[tuple[str, str]], dict[str, float]] = {}
    after: dict[frozenset[tuple[str, str]], dict[str, float]] = {}
    for series in gauges:
        process, bound = _split(series.labels)
        after.setdefault(process, {})[bound] = series.samples[-1][1]
        at_start = find_at_start(series.samples, start_s, created_s.get(process))
        before.setdefault(process, {})[bound] = at_start
    changes = [_subtract(_read(values), _read(before[process])) for process, values in after.items()]
    return _add_up(change for change in changes if change.total or change.half)


def _split(labels: Labels) -> tuple[frozenset[tuple[str, str]], str]:
    others = {name: value for name, value in labels.items() if name != "bound"}
    return identify(others), labels.get("bound", "")


def _read(values: dict[str, float]) -> _Stand:
    # An infinite bound is no sample.
    return _Stand(values.get("total", 0.0), values.get("high"))


def _subtract(after: _Stand, before: _Stand) -> Saving:
    """Return what was added to a sum; the variances of tasks that follow each other add up."""
    if after.half is None:
        return Saving(after.total - before.total, None)
    earlier = before.half or 0.0
    variance = after.half**2 - earlier**2 if after.half > earlier else after.half**2
    return Saving(after.total - before.total, sqrt(variance))


def _add_up(estimates: Iterable[Saving]) -> Saving | None:
    found = list(estimates)
    known = [(one.total, one.half) for one in found if one.half is not None]
    if known:
        return Saving(sum(total for total, _ in known), sqrt(sum(half**2 for _, half in known)))
    return Saving(sum(one.total for one in found), None) if found else None
