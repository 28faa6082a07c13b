"""By how much the operator's counters rose in a period, over restarts and over new series.

PromQL's increase() does not see what a counter has when it first appears, so a namespace's first tasks and whatever
follows a restart of the operator would be missing, and it extrapolates, so that parts would not add up to the whole.
Here peaks of short steps are compared. What a counter has when it appears counts if it was created within the period,
as the ``_created`` series of the client library says; otherwise it counts from its first sample, as in increase().
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from perllm.reporting.prometheus import RangeSource
from perllm.telemetry.queries import WINDOW, select_window
from perllm.telemetry.series import Samples, Series

MAX_STEPS = 480
MIN_STEP_S = 15
LOOK_BACK_S = 120
"""At most this time passes between two samples of the operator's metrics."""

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
        step_s = max(ceil(since_s / MAX_STEPS), MIN_STEP_S)
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

    async def read_increases(self, counter: str) -> Increases:
        """Return by how much a counter rose; its name is without ``_total``.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        peaks = await self.read_values(f"{counter}_total", "max")
        created_s = await self.read_created(counter)
        start_s = self.period.start_s
        return Increases(
            Increase(one.labels, find_increase(one.samples, start_s, created_s.get(identify(one.labels))))
            for one in peaks
        )

    async def read_created(self, counter: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the Unix time at which each series of a counter was created, by its labels.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        period = self.period
        query = self._select(f"max_over_time({counter}_created[{WINDOW}])", period.length_s + LOOK_BACK_S)
        found = await self._source.query_range(query, period.end_s, period.end_s, period.step_s)
        return {identify(one.labels): one.samples[-1][1] for one in found if one.samples}

    async def read_values(self, metric: str, choice: str = "last") -> Sequence[Series]:
        """Return the last, or the greatest (max), value of each series in each step; series without any are left out.

        Raises:
            TelemetryError, ApiError: Prometheus does not answer.
        """
        period = self.period
        query = self._select(f"{choice}_over_time({metric}[{WINDOW}])", max(period.step_s, LOOK_BACK_S))
        found = await self._source.query_range(query, period.start_s, period.end_s, period.step_s)
        return [one for one in found if one.samples]

    def _select(self, query: str, window_s: float) -> str:
        return select_window(query, window_s, self._matchers)


def find_increase(peaks: Samples, start_s: float, created_s: float | None) -> float:
    """Return by how much a counter rose.

    Args:
        peaks: its greatest values until each step; not empty.
        start_s: Unix time of the start.
        created_s: Unix time at which it was 0, since its last reset; None if unknown.
    """
    first_s, first = peaks[0]
    is_new = first_s > start_s and created_s is not None and created_s >= start_s
    increase = first if is_new else 0.0
    for (_, before), (_, value) in pairwise(peaks):
        # A counter that is lower than before was reset, and has risen from 0 since.
        increase += value - before if value >= before else value
    return increase


def identify(labels: Labels) -> frozenset[tuple[str, str]]:
    """Return what series of different metrics have in common if they have the same labels."""
    return frozenset((name, value) for name, value in labels.items() if name != "__name__")
