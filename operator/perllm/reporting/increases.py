"""By how much the operator's counters rose in a period, over restarts and over new series.

PromQL's increase() does not see what a counter has when it first appears, so a namespace's first tasks and all that
follow a restart of the operator would be missing, and it extrapolates, so that parts would not add up to the whole.
Here peaks of short steps are compared, so that a reset is seen unless a counter exceeds its former value again within
two of them. What a counter has when it appears counts if it was created within the period,
as the ``_created`` series of the client library says; otherwise it counts from its first sample, as in increase().
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from perllm.reporting.prometheus import RangeSource
from perllm.telemetry.queries import WINDOW, select_window
from perllm.telemetry.series import Samples, Series

MAX_STEPS = 720
LOOK_BACK_S = 120
"""At most this time passes between two samples of the operator's metrics, so a counter has one before a period."""

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
    """

    def __init__(self, source: RangeSource, period: Period, matchers: Labels) -> None:
        self.period = period
        self._source = source
        self._matchers = matchers

    async def read_increases(self, counter: str, **labels: str) -> Increases:
        """Return by how much the series of a counter with these labels rose; its name is without ``_total``.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        peaks = await self.read_values(f"{counter}_total", "max", **labels)
        created_s = await self.read_created(counter, **labels)
        start_s = self.period.start_s
        return Increases(
            Increase(one.labels, find_increase(one.samples, start_s, created_s.get(identify(one.labels))))
            for one in peaks
        )

    async def read_created(self, counter: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the Unix time at which each series of a counter was created, by its labels.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        period = self.period
        query = self._select(f"max_over_time({counter}_created[{WINDOW}])", period.length_s + LOOK_BACK_S, labels)
        found = await self._source.query_range(query, period.end_s, period.end_s, period.step_s)
        return {identify(one.labels): one.samples[-1][1] for one in found if one.samples}

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
        return [one for one in found if one.samples]

    def _select(self, query: str, window_s: float, labels: Labels) -> str:
        return select_window(query, window_s, {**self._matchers, **labels})


def find_increase(peaks: Samples, start_s: float, created_s: float | None) -> float:
    """Return by how much a counter rose.

    Args:
        peaks: its greatest values until each step; not empty.
        start_s: Unix time of the start.
        created_s: Unix time at which it was 0, since its last reset; None if unknown.
    """
    before = find_at_start(peaks, start_s, created_s)
    increase = 0.0
    for time_s, value in peaks:
        if time_s > start_s:
            # A counter that is lower than before was reset, and has risen from 0 since.
            increase += value - before if value >= before else value
            before = value
    return increase


def find_at_start(samples: Samples, start_s: float, created_s: float | None) -> float:
    """Return the value of a series at the start: 0 if it was created later, and the first known one after a gap."""
    earlier = [value for time_s, value in samples if time_s <= start_s]
    if earlier:
        return earlier[-1]
    return 0.0 if created_s is not None and created_s >= start_s else samples[0][1]


def identify(labels: Labels) -> frozenset[tuple[str, str]]:
    """Return what series of different metrics have in common if they have the same labels."""
    return frozenset((name, value) for name, value in labels.items() if name != "__name__")
