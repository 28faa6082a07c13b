"""The telemetry service: polls Prometheus and keeps the latest snapshot and the energy of the last minutes."""

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
        guard: Contains what goes wrong about one series, one node, one query.
        rng: For the jitter of pauses while polls fail.

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
        """Ask for everything once; what was answered is kept even if something else was not."""
        self._note(await self._ask())
        await self._retake()
        self._polled.set()
        self._polled = asyncio.Event()

    async def _ask(self) -> str:
        """Ask for everything; return the last thing that went wrong, empty if nothing did."""
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

    async def wait_until_covered(self, node: str, end_s: float, timeout_s: float) -> bool:
        """Wait until the node's energy up to ``end_s`` is known; return False when that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.energy.covers(node, end_s):
                    await self._polled.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self, metric: NodeMetric) -> None:
        started_s = self._clock()
        query = getattr(self._settings.queries, metric.value)
        with self._metrics.query_time.labels(metric.value).time():
            series = await self._source.query(select_window(query, self._window_s(metric, started_s)))
        await self._add(metric, series, started_s)
        self._queried_s[metric] = started_s

    def _window_s(self, metric: NodeMetric, now_s: float) -> float:
        """Return how far to look back: over all that was not seen yet, with some overlap."""
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
            await _let_others_run(index)
            if series.fault:
                faults.append(f"{describe_labels(series.labels)}: {series.fault}")
            elif (node := mapping.find(series.labels)) is None:
                unmapped += 1
            elif fault := self._take(metric, node, series, now_s):
                faults.append(f"{describe_labels(series.labels)}: {fault}")
        self._readings.forget(metric, now_s)
        self._metrics.unmapped.labels(metric.value).set(unmapped)
        self._note_faults(metric, faults)

    def _take(self, metric: NodeMetric, node: str, series: Series, now_s: float) -> str:
        """Take the samples of a series; return why not all of them could be taken."""
        unit = self._settings.queries.energy_unit_j if metric is NodeMetric.ENERGY else 1.0
        device = find_device(series.labels, self._settings.device_labels)
        # Later samples would look fresh until their time has come.
        last_s = now_s + self._settings.stale_after_s
        samples = [(time_s, value * unit) for time_s, value in series.samples if time_s <= last_s]
        name = f"{metric} of {node} {device}"
        if not self._guard.run(
            "series", name, lambda: self._readings.add(metric, node, device, samples, now_s), again=False
        ):
            return "it cannot be worked on, see the log"
        if len(samples) < len(series.samples):
            return f"samples {series.samples[-1][0] - now_s:.0f} s in the future are left out; compare the clocks"
        return ""

    def _note_faults(self, metric: NodeMetric, faults: Collection[str]) -> None:
        """Count series that cannot be used, and tell one of them when there are some for the first time."""
        self._metrics.unusable.labels(metric.value).set(len(faults))
        if faults and not self._faults.get(metric):
            self._faults[metric] = next(iter(faults))
            what = "%d series of %s cannot be used, the others go on; such as %s"
            self._logger.warning(what, len(faults), metric.value, clean_line(self._faults[metric]))
        elif not faults and self._faults.pop(metric, ""):
            self._logger.info("All series of %s can be used again.", metric.value)

    def _note(self, fault: str) -> None:
        if not fault:
            if self.failures:
                self._logger.info("Telemetry works again after %d failed polls.", self.failures)
            self.failures = 0
            self.last_success_s = self._clock()
        else:
            if not self.failures:
                self._logger.warning("Telemetry fails, figures become stale: %s", fault)
            self.failures += 1
            self._metrics.failures.inc()
        self._metrics.up.set(float(not fault))

    async def _retake(self) -> None:
        now_s = self._clock()
        figures = {}
        for index, node in enumerate(list(self._nodes())):
            figures[node] = self._judge(node, now_s)
            await _let_others_run(index)
        self.snapshot = Snapshot(now_s, figures)
        self._metrics.count_nodes(self.snapshot)

    def _judge(self, node: str, now_s: float) -> NodeFigures:
        """Return the figures of a node; all missing where they cannot be worked out."""
        found: list[NodeFigures] = []
        self._guard.run("figures", node, lambda: found.append(self._readings.figures(node, now_s)), again=False)
        return found[0] if found else UNKNOWN_NODE


async def _let_others_run(index: int) -> None:
    """Give way once per batch: a thousand nodes must not hold up a decision for tens of milliseconds."""
    if index % _BATCH == _BATCH - 1:
        await asyncio.sleep(0)
