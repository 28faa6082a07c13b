"""The telemetry service: polls Prometheus and keeps the latest snapshot and recent energy samples."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping
from random import Random

from perllm.backoff import Backoff
from perllm.energy.history import EnergyHistory
from perllm.guard import Guard, describe
from perllm.telemetry.mapping import NodeMapping, find_device
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.queries import select_window
from perllm.telemetry.readings import NodeMetric, Readings
from perllm.telemetry.series import Series, describe_labels
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import UNKNOWN_NODE, NodeFigures, Snapshot
from perllm.telemetry.source import MetricSource, TelemetryError, TelemetryUnreachableError
from perllm.text import clean_line

# Samples may reach Prometheus late, for example through remote write.
_LATENESS_S = 10.0

_BATCH = 100

NodeAddresses = Callable[[], Mapping[str, Collection[str]]]


class Telemetry:
    """Polls in the background; all other parts read ``snapshot`` and ``energy`` from memory.

    Args:
        source: Where the samples come from.
        settings: The queries, how often they are made, and how long figures are trusted.
        nodes: Returns the current nodes: addresses by name.
        clock: Seconds since the epoch, as in the timestamps of samples.
        metrics: Metrics about the service itself.
        guard: Contains failures of single series, nodes and queries.
        rng: Jitter of the pauses while polls fail.

    Attributes:
        snapshot: The latest figures. Replaced by each poll, never modified.
        energy: Recent samples of the energy counters.
        last_success_s: When a poll last succeeded, in seconds since the epoch; None if none has.
        failures: Number of polls that have failed since then.
    """

    def __init__(
        self,
        source: MetricSource,
        settings: TelemetrySettings,
        nodes: NodeAddresses,
        clock: Callable[[], float],
        metrics: TelemetryMetrics,
        *,
        guard: Guard,
        rng: Random,
    ) -> None:
        self._source = source
        self._settings = settings
        self._nodes = nodes
        self._clock = clock
        self._metrics = metrics
        self._guard = guard
        self._rng = rng
        self._backoff = Backoff(settings.interval_s, settings.max_backoff_s)
        self._faults: dict[NodeMetric, str] = {}
        self._logger = logging.getLogger(__name__)
        self._readings = Readings(history_s=settings.history_s, stale_after_s=settings.stale_after_s)
        self._queried_s: dict[NodeMetric, float] = {}
        self.energy = EnergyHistory(self._readings.energy, settings.max_device_power_w)
        self.snapshot = Snapshot({})
        self.last_success_s: float | None = None
        self.failures = 0
        metrics.watch_age(lambda: math.nan if self.last_success_s is None else clock() - self.last_success_s)

    @property
    def healthy(self) -> bool:
        """Whether the last poll succeeded."""
        return self.last_success_s is not None and self.failures == 0

    async def run(self) -> None:
        """Poll until cancelled. The snapshot is updated at every interval, even while polls fail: figures age."""
        now_s = asyncio.get_running_loop().time
        next_poll_s = -math.inf
        while True:
            if now_s() >= next_poll_s:
                await self.poll()
                next_poll_s = now_s() + (self._backoff.pause_s(self.failures, self._rng) if self.failures else 0.0)
            else:
                await self._retake()
            await asyncio.sleep(self._settings.interval_s)

    async def poll(self) -> None:
        """Make every query once; the answers that did come are kept even if other queries fail."""
        self._record_poll(await self._query_all())
        await self._retake()

    async def _query_all(self) -> str:
        """Make every query; return the last failure in words, empty if there was none."""
        fault = ""
        for metric in NodeMetric:
            try:
                await self._read(metric)
                self._guard.clear("query", metric)
            except TelemetryUnreachableError as error:
                return str(error)
            except TelemetryError as error:
                fault = f"{metric}: {error}"
            except Exception as error:
                self._guard.note("query", metric, error)
                fault = f"{metric}: {describe(error)}"
        return fault

    async def _read(self, metric: NodeMetric) -> None:
        started_s = self._clock()
        query = getattr(self._settings.queries, metric.value)
        with self._metrics.query_time.labels(metric.value).time():
            series = await self._source.query(select_window(query, self._window_s(metric, started_s)))
        await self._add(metric, series, started_s)
        self._queried_s[metric] = started_s

    def _window_s(self, metric: NodeMetric, now_s: float) -> float:
        """Return how far a query reaches back: to the previous one, with some overlap for late samples."""
        longest_s = self._settings.history_s if metric is NodeMetric.ENERGY else self._settings.stale_after_s
        if metric not in self._queried_s:
            return longest_s
        unseen_s = now_s - self._queried_s[metric]
        return min(longest_s, unseen_s + self._settings.interval_s + _LATENESS_S)

    async def _add(self, metric: NodeMetric, all_series: Collection[Series], now_s: float) -> None:
        mapping = NodeMapping.build(self._nodes(), self._settings.node_labels)
        unmapped = 0
        faults = []
        for index, series in enumerate(all_series):
            await _yield_per_batch(index)
            if series.fault:
                faults.append(f"{describe_labels(series.labels)}: {series.fault}")
            elif (node := mapping.find(series.labels)) is None:
                unmapped += 1
            elif fault := self._take(metric, node, series, now_s):
                faults.append(f"{describe_labels(series.labels)}: {fault}")
        self._readings.forget(metric, now_s)
        self._metrics.unmapped.labels(metric.value).set(unmapped)
        self._report_faults(metric, faults)

    def _take(self, metric: NodeMetric, node: str, series: Series, now_s: float) -> str:
        """Store the samples of a series; return why some were not stored, empty if all were."""
        unit = self._settings.queries.energy_unit_j if metric is NodeMetric.ENERGY else 1.0
        device = find_device(series.labels, self._settings.device_labels)
        # Samples from the future would look fresh until that time has come.
        last_s = now_s + self._settings.stale_after_s
        samples = [(time_s, value * unit) for time_s, value in series.samples if time_s <= last_s]
        name = f"{metric} of {node} {device}"
        if not self._guard.run(
            "series", name, lambda: self._readings.add(metric, node, device, samples, now_s), again=False
        ):
            return "processing it failed, see the log"
        if len(samples) < len(series.samples):
            return f"samples {series.samples[-1][0] - now_s:.0f} s in the future are ignored; compare the clocks"
        return ""

    def _report_faults(self, metric: NodeMetric, faults: Collection[str]) -> None:
        """Count unusable series; log one of them when the first ones appear, and when there are none left."""
        self._metrics.unusable.labels(metric.value).set(len(faults))
        if faults and not self._faults.get(metric):
            self._faults[metric] = next(iter(faults))
            what = "%d series of %s cannot be used, the others are not affected; for example %s"
            self._logger.warning(what, len(faults), metric.value, clean_line(self._faults[metric]))
        elif not faults and self._faults.pop(metric, ""):
            self._logger.info("all series of %s can be used again", metric.value)

    def _record_poll(self, fault: str) -> None:
        if not fault:
            if self.failures:
                self._logger.info("telemetry works again after %d failed polls", self.failures)
            self.failures = 0
            self.last_success_s = self._clock()
        else:
            if not self.failures:
                self._logger.warning("telemetry fails, figures become stale: %s", fault)
            self.failures += 1
            self._metrics.failures.inc()
        self._metrics.up.set(float(not fault))

    async def _retake(self) -> None:
        now_s = self._clock()
        figures = {}
        for index, node in enumerate(list(self._nodes())):
            figures[node] = self._compute_figures(node, now_s)
            await _yield_per_batch(index)
        self.snapshot = Snapshot(figures)
        self._metrics.count_nodes(self.snapshot)

    def _compute_figures(self, node: str, now_s: float) -> NodeFigures:
        """Return the figures of a node; all missing if computing them fails."""
        found: list[NodeFigures] = []
        self._guard.run("figures", node, lambda: found.append(self._readings.figures(node, now_s)), again=False)
        return found[0] if found else UNKNOWN_NODE


async def _yield_per_batch(index: int) -> None:
    """Yield to other tasks once per batch: a thousand nodes must not delay a decision by tens of milliseconds."""
    if index % _BATCH == _BATCH - 1:
        await asyncio.sleep(0)
