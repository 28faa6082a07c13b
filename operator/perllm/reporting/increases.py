"""By how much the operator's counters rose in a period, over restarts and over new series.

PromQL's increase() does not see what a counter has when it first appears, so a namespace's first tasks and all that
follow a restart of the operator would be missing, and it extrapolates, so that parts would not add up to the whole.
Here peaks of short steps are compared, so that a reset is seen unless a counter exceeds its former value again within
two of them. What a counter has when it appears counts if it was created within the period,
as the ``_created`` series of the client library says; otherwise it counts from its first sample, as in increase().

Two series of one counter, as of two scrape jobs or two servers, have the same ``_created``, to the microsecond, so only
one of them counts.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from perllm.reporting.prometheus import RangeSource
from perllm.telemetry.queries import WINDOW, select_window
from perllm.telemetry.series import Samples, Series

MAX_STEPS = 720
LOOK_BACK_S = 120
"""At most this time passes between two samples of the operator's metrics, so a counter has one before a period."""

_EXPORTED = "exported_"
"""Prometheus puts this before a label of a metric if the scrape job has one of the same name, such as node."""

OWN_LABELS = frozenset(
    {"by", "chance", "choice", "explored", "gpu", "kind", "met", "node", "part", "payer", "phase", "policy", "quality"}
    | {"reason", "tier", "verb"}
)
"""Labels that the operator gives its counters; all others come from the scrape."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Period:
    """A time in whole steps; Unix times in seconds."""

    start_s: int
    end_s: int
    step_s: int

    @classmethod
    def last(cls, since_s: float, now_s: float) -> "Period":
        """Return the last ``since_s`` seconds, rounded up to a multiple of a step."""
        step_s = ceil(since_s / MAX_STEPS)
        end_s = int(now_s)
        return cls(end_s - ceil(since_s / step_s) * step_s, end_s, step_s)

    @property
    def length_s(self) -> int:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Increase:
    """By how much one series rose."""

    labels: Labels
    amount: float


class Increases:
    """How much the series of one metric rose."""

    def __init__(self, increases: Iterable[Increase]) -> None:
        self._increases = tuple(increases)

    def __iter__(self) -> Iterator[Increase]:
        return iter(self._increases)

    def total(self, **labels: str) -> float:
        """Return the sum over the series with these labels."""
        return sum(self.sum_by("", **labels).values())

    def sum_by(self, label: str, **labels: str) -> dict[str, float]:
        """Return the sums over the series with these labels, by the value of another label."""
        sums: dict[str, float] = {}
        for one in self:
            if all(one.labels.get(name) == value for name, value in labels.items()):
                key = one.labels.get(label, "")
                sums[key] = sums.get(key, 0.0) + one.amount
        return sums


class Past:
    """Reads the operator's metrics of a period.

    Args:
        source: Prometheus.
        period: the period.
        matchers: labels that all series must have.

    Attributes:
        first_s: Unix time of the earliest step that had a sample; infinite if none had.
    """

    def __init__(self, source: RangeSource, period: Period, matchers: Labels) -> None:
        self.period = period
        self.first_s = inf
        self._source = source
        self._matchers = matchers

    async def read_increases(self, counter: str, **labels: str) -> Increases:
        """Return by how much the series of a counter with these labels rose; its name is without ``_total``.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        peaks = await self.read_values(f"{counter}_total", "max", **labels)
        created_s = await self._read_created(counter, labels)
        found: dict[Hashable, Increase] = {}
        for place, one in enumerate(peaks):
            began_s = created_s.get(identify(one.labels))
            increase = Increase(one.labels, find_increase(one.samples, self.period.start_s, began_s))
            key = place if began_s is None else (began_s, _select_own(one.labels))
            if key not in found or found[key].amount < increase.amount:
                found[key] = increase
        return Increases(found.values())

    def restrict(self, **labels: str) -> "Past":
        """Return the same for series that have these labels as well."""
        return Past(self._source, self.period, {**self._matchers, **labels})

    async def _read_created(self, counter: str, labels: Labels) -> dict[frozenset[tuple[str, str]], float]:
        """Return the Unix time at which each series of a counter was 0 first, by its labels: before any reset."""
        period = self.period
        query = self._select(f"min_over_time({counter}_created[{WINDOW}])", period.length_s + LOOK_BACK_S, labels)
        found = await self._source.query_range(query, period.end_s, period.end_s, period.step_s)
        return {identify(_restore_labels(one.labels)): one.samples[-1][1] for one in found if one.samples}

    async def read_values(self, metric: str, choice: str = "last", **labels: str) -> Sequence[Series]:
        """Return the last, or the greatest (max), value of each series in each step that has any.

        The first ones are of the time shortly before the period.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        period = self.period
        query = self._select(f"{choice}_over_time({metric}[{WINDOW}])", period.step_s, labels)
        from_s = period.start_s - ceil(LOOK_BACK_S / period.step_s) * period.step_s
        found = await self._source.query_range(query, from_s, period.end_s, period.step_s)
        values = [replace(one, labels=_restore_labels(one.labels)) for one in found if one.samples]
        self.first_s = min([self.first_s, *(one.samples[0][0] for one in values)])
        return values

    def _select(self, query: str, window_s: float, labels: Labels) -> str:
        return select_window(query, window_s, {**self._matchers, **labels})


def find_increase(peaks: Samples, start_s: float, created_s: float | None) -> float:
    """Return by how much a counter rose.

    Args:
        peaks: its greatest values until each step; not empty.
        start_s: Unix time of the start.
        created_s: Unix time at which it was 0, before its first sample; None if unknown.
    """
    before = _find_at_start(peaks, start_s, created_s)
    increase = 0.0
    for time_s, value in peaks:
        if time_s > start_s:
            # A counter that is lower than before was reset, and has risen from 0 since.
            increase += value - before if value >= before else max(value, 0.0)
            before = value
    return increase


def _find_at_start(samples: Samples, start_s: float, created_s: float | None) -> float:
    """Return the value of a series at the start: 0 if it was created later, and the first known one after a gap."""
    earlier = [value for time_s, value in samples if time_s <= start_s]
    if earlier:
        return earlier[-1]
    return 0.0 if created_s is not None and created_s >= start_s else samples[0][1]


def _restore_labels(labels: Labels) -> Labels:
    """Return the labels with those of the operator under the names that it gave them."""
    renamed = {name: value for name, value in labels.items() if name.startswith(_EXPORTED)}
    others = {name: value for name, value in labels.items() if name not in renamed}
    return {**others, **{name.removeprefix(_EXPORTED): value for name, value in renamed.items()}}


def _select_own(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in labels.items() if name in OWN_LABELS)


def identify(labels: Labels) -> frozenset[tuple[str, str]]:
    """Return what series of different metrics have in common if they have the same labels."""
    return frozenset((name, value) for name, value in labels.items() if name != "__name__")
