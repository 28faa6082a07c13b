"""The telemetry service: polls Prometheus and keeps the latest snapshot and the energy of the last minutes."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping

from perllm.telemetry.history import EnergyHistory
from perllm.telemetry.mapping import NodeMapping, find_device
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.queries import select_window
from perllm.telemetry.readings import Metric, Readings
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import Snapshot
from perllm.telemetry.source import MetricSource, Series, TelemetryError, TelemetryUnreachableError

# Samples may reach Prometheus late, for example by remote write.
_LATENESS_S = 10.0

_BATCH = 100

NodeAddresses = Callable[[], Mapping[str, Collection[str]]]


class Telemetry:
    """Polls for ever; everything else reads ``snapshot`` and ``energy`` from memory.

    Args:
        source: Where the samples come from.
        settings: What is asked, how often, and how long figures are trusted.
        nodes: The nodes to look for now: addresses by name.
        clock: Seconds since the epoch, as in the samples' times.
        metrics: What the service tells of itself.

    Attributes:
        snapshot: The latest figures. Replaced, never changed.
        energy: What the energy counters said lately.
        last_success_s: When a poll succeeded last, in seconds since the epoch; None before.
        failures: Number of polls that failed since then.
    """

    def __init__(
        self,
        source: MetricSource,
        settings: TelemetrySettings,
        nodes: NodeAddresses,
        clock: Callable[[], float],
        metrics: TelemetryMetrics,
    ) -> None:
        self._source = source
        self._settings = settings
        self._nodes = nodes
        self._clock = clock
        self._metrics = metrics
        self._logger = logging.getLogger(__name__)
        self._readings = Readings(history_s=settings.history_s, stale_after_s=settings.stale_after_s)
        self._queried_s: dict[Metric, float] = {}
        self._polled = asyncio.Event()
        self.energy = EnergyHistory(self._readings.energy, settings.max_device_power_w)
        self.snapshot = Snapshot(clock(), {})
        self.last_success_s: float | None = None
        self.failures = 0
        metrics.watch_age(lambda: math.nan if self.last_success_s is None else clock() - self.last_success_s)

    @property
    def healthy(self) -> bool:
        """Whether the last poll succeeded."""
        return self.last_success_s is not None and self.failures == 0

    async def run(self) -> None:
        """Poll until cancelled. The snapshot is judged anew at every interval, also while polls fail."""
        next_poll_s = -math.inf
        while True:
            if self._clock() >= next_poll_s:
                await self.poll()
                next_poll_s = self._clock() + self._backoff_s()
            else:
                await self._retake()
            await asyncio.sleep(self._settings.interval_s)

    async def poll(self) -> None:
        """Ask for everything once; what was answered is kept even if something else was not."""
        error: TelemetryError | None = None
        for metric in Metric:
            try:
                await self._read(metric)
            except TelemetryError as failure:
                error = failure
                if isinstance(failure, TelemetryUnreachableError):
                    break
        self._note(error)
        await self._retake()
        self._polled.set()
        self._polled = asyncio.Event()

    async def wait_until_covered(self, node: str, end_s: float, timeout_s: float) -> bool:
        """Wait until the node's energy up to ``end_s`` is known; return False when that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.energy.covers(node, end_s):
                    await self._polled.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self, metric: Metric) -> None:
        started_s = self._clock()
        query = getattr(self._settings.queries, metric.value)
        with self._metrics.query_time.labels(metric.value).time():
            series = await self._source.query(select_window(query, self._window_s(metric, started_s)))
        await self._add(metric, series, started_s)
        self._queried_s[metric] = started_s

    def _window_s(self, metric: Metric, now_s: float) -> float:
        """Return how far to look back: over all that was not seen yet, with some overlap."""
        longest_s = self._settings.history_s if metric is Metric.ENERGY else self._settings.stale_after_s
        if metric not in self._queried_s:
            return longest_s
        unseen_s = now_s - self._queried_s[metric]
        return min(longest_s, unseen_s + self._settings.interval_s + _LATENESS_S)

    async def _add(self, metric: Metric, all_series: Collection[Series], now_s: float) -> None:
        mapping = NodeMapping.build(self._nodes(), self._settings.node_labels)
        unit = self._settings.queries.energy_unit_j if metric is Metric.ENERGY else 1.0
        unmapped = 0
        for index, series in enumerate(all_series):
            await _let_others_run(index)
            node = mapping.find(series.labels)
            if node is None:
                unmapped += 1
                continue
            device = find_device(series.labels, self._settings.device_labels)
            samples = [(time_s, value * unit) for time_s, value in series.samples]
            self._readings.add(metric, node, device, samples, now_s)
        self._readings.forget(metric, now_s)
        self._metrics.unmapped.labels(metric.value).set(unmapped)

    def _note(self, error: TelemetryError | None) -> None:
        if error is None:
            if self.failures:
                self._logger.info("Telemetry works again after %d failed polls.", self.failures)
            self.failures = 0
            self.last_success_s = self._clock()
        else:
            if not self.failures:
                self._logger.warning("Telemetry fails, figures become stale: %s", error)
            self.failures += 1
            self._metrics.failures.inc()
        self._metrics.up.set(float(error is None))

    async def _retake(self) -> None:
        now_s = self._clock()
        figures = {}
        for index, node in enumerate(list(self._nodes())):
            figures[node] = self._readings.figures(node, now_s)
            await _let_others_run(index)
        self.snapshot = Snapshot(now_s, figures)
        self._metrics.count_nodes(self.snapshot)

    def _backoff_s(self) -> float:
        """Return how long to leave a failing server alone: twice as long with every failure, up to a limit."""
        if not self.failures:
            return 0.0
        doubled_s = self._settings.interval_s * 2.0 ** min(self.failures - 1, 16)
        return float(min(doubled_s, self._settings.max_backoff_s))


async def _let_others_run(index: int) -> None:
    """Give way once per batch: a thousand nodes must not hold up a decision for tens of milliseconds."""
    if index % _BATCH == _BATCH - 1:
        await asyncio.sleep(0)
