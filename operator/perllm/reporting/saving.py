"""What PerLLM saved in a period, from gauges that sum it up since each start of the operator."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from perllm.reporting.increases import Past, identify

ANY_COUNTER = "perllm_outcomes_learned"
"""Without labels of its own, and created when the operator starts."""

_Stands = dict[float, dict[str, float]]


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
    created = await past.read_values(f"{ANY_COUNTER}_created")
    begins_s = {identify(one.labels): dict(one.samples) for one in created}
    processes: dict[Hashable, tuple[float | None, _Stands]] = {}
    for series in gauges:
        bound = series.labels.get("bound", "")
        place = identify({name: value for name, value in series.labels.items() if name != "bound"})
        known_s = begins_s.get(place, {})
        for time_s, value in series.samples:
            # A container that restarts is another process under the same labels, and two jobs may scrape one process.
            began_s = known_s.get(time_s)
            _, stands = processes.setdefault(place if began_s is None else began_s, (began_s, {}))
            stands.setdefault(time_s, {})[bound] = value
    changes = [_find_change(stands, past.period.start_s, began_s) for began_s, stands in processes.values()]
    return _add_up(change for change in changes if change.total or change.half)


def _find_change(stands: _Stands, start_s: float, began_s: float | None) -> Saving:
    """Return what a process added since the start; all that it has if it began later, and no more than is known."""
    times_s = sorted(stands)
    earlier_s = [time_s for time_s in times_s if time_s <= start_s]
    before = stands[earlier_s[-1] if earlier_s else times_s[0]]
    is_new = not earlier_s and began_s is not None and began_s >= start_s
    return _subtract(_read(stands[times_s[-1]]), _Stand(0.0, None) if is_new else _read(before))


def _read(values: Mapping[str, float]) -> _Stand:
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
