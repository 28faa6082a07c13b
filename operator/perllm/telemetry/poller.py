"""The telemetry service: polls Prometheus and keeps the latest snapshot and recent energy samples."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

from perllm.backoff import Backoff
from perllm.energy.series import MAX_DEVICES
from perllm.guard import Guard, describe
from perllm.telemetry.assignment import DeviceSamples, SeriesAssignment
from perllm.telemetry.feeds import Feed, NodeMetric, list_feeds
from perllm.telemetry.mapping import NodeMapping
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.queries import select_window
from perllm.telemetry.readings import Readings
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import UNKNOWN_NODE, NodeFigures, Snapshot
from perllm.telemetry.source import MetricSource, TelemetryError, TelemetryUnreachableError
from perllm.text import clean_line

_LATENESS_S = 10.0
"""Samples may reach Prometheus so late, for example through remote write. As often as this, a query reaches back so far
behind the last one that did; in between, only what is new is read."""

_BATCH = 100

NodeAddresses = Callable[[], Mapping[str, Collection[str]]]


@dataclass(frozen=True, slots=True)
class _Broken:
    """A query that Prometheus answered with an error: how often in a row, and when it is made again."""

    fault: str
    failures: int
    again_s: float


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
        energy: The energy of the nodes in the last minutes.
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
        self._feeds = list_feeds(settings)
        self._faults: dict[Feed, str] = {}
        self._broken: dict[Feed, _Broken] = {}
        self._unanswered = 0
        self._logger = logging.getLogger(__name__)
        self._readings = Readings(settings)
        self._queried_s: dict[Feed, float] = {}
        self._reread_s: dict[Feed, float] = {}
        self.energy = self._readings.energy
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
                pause_s = self._backoff.pause_s(self._unanswered, self._rng) if self._unanswered else 0.0
                next_poll_s = now_s() + pause_s
            else:
                await self._retake()
            await asyncio.sleep(self._settings.interval_s)

    async def poll(self) -> None:
        """Make every query once; the answers that did come are kept even if other queries fail."""
        self._record_poll(await self._query_all())
        await self._retake()

    async def _query_all(self) -> str:
        """Make every query; return the last failure in words, empty if there was none.

        If none of the first two is answered, the others would not be either.
        """
        fault, mapping = "", NodeMapping.build(self._nodes(), self._settings.node_labels)
        has_answers, unanswered = False, dict[Feed, str]()
        for feed in self._feeds:
            if self._is_paused(feed):
                fault = self._broken[feed].fault
                continue
            try:
                await self._read(feed, mapping)
                self._guard.clear("query", feed.name)
                self._broken.pop(feed, None)
            except TelemetryUnreachableError as error:
                unanswered[feed] = str(error)
                if len(unanswered) > 1 and not has_answers:
                    break
                continue
            except TelemetryError as error:
                fault = self._pause(feed, str(error))
            except Exception as error:
                self._guard.note("query", feed.name, error)
                fault = self._pause(feed, describe(error))
            has_answers = True
        if unanswered and not has_answers:
            self._unanswered += 1
            return list(unanswered.values())[-1]
        for feed, words in unanswered.items():
            fault = self._pause(feed, words)
        self._unanswered = 0
        return fault

    def _is_paused(self, feed: Feed) -> bool:
        broken = self._broken.get(feed)
        return broken is not None and asyncio.get_running_loop().time() < broken.again_s

    def _pause(self, feed: Feed, words: str) -> str:
        """Have a query made less and less often while it fails, without the others; return the failure in words."""
        known = self._broken.get(feed)
        failures = 1 if known is None else known.failures + 1
        again_s = asyncio.get_running_loop().time() + self._backoff.pause_s(failures, self._rng)
        self._broken[feed] = _Broken(f"{feed.name}: {words}", failures, again_s)
        return self._broken[feed].fault

    async def _read(self, feed: Feed, mapping: NodeMapping) -> None:
        started_s = self._clock()
        if self._queried_s.get(feed, -math.inf) > started_s:
            # The clock was set back: what was read by the wrong one may have been dropped as too old.
            del self._queried_s[feed]
            self._reread_s.pop(feed, None)
        is_reread = started_s >= self._reread_s.get(feed, -math.inf) + _LATENESS_S
        window_s = self._window_s(feed, started_s, is_reread=is_reread)
        query = select_window(feed.query, window_s, self._settings.matchers)
        with self._metrics.query_time.labels(feed.name).time():
            series = await self._source.query(query)
        await self._add(feed, mapping, series, started_s, window_s=window_s)
        self._queried_s[feed] = started_s
        if is_reread:
            self._reread_s[feed] = started_s

    def _window_s(self, feed: Feed, now_s: float, *, is_reread: bool) -> float:
        """Return how far a query reaches back: to the previous one, or further, for late samples, if it is a reread."""
        is_energy = feed.metric in (NodeMetric.ENERGY, NodeMetric.POWER)
        longest_s = self._settings.history_s if is_energy else self._settings.stale_after_s
        since_s, overlap_s = (self._reread_s, _LATENESS_S) if is_reread else (self._queried_s, 0.0)
        if feed not in since_s:
            return longest_s
        unseen_s = max(now_s - since_s[feed], 0.0)
        return min(longest_s, unseen_s + self._settings.interval_s + overlap_s)

    async def _add(
        self, feed: Feed, mapping: NodeMapping, all_series: Collection[Series], now_s: float, *, window_s: float
    ) -> None:
        assignment = SeriesAssignment(feed, mapping)
        for index, series in enumerate(all_series):
            assignment.add(series)
            await _yield_per_batch(index)
        faults = [*self._find_lag(all_series, now_s, window_s), *assignment.faults]
        for index, device in enumerate(assignment.list_devices()):
            fault = device.fault or self._take(feed, device, now_s)
            faults += [fault] if fault else []
            await _yield_per_batch(index)
        self._readings.find_history(feed).forget(now_s)
        self._metrics.unmapped.labels(feed.name).set(len(assignment.unmapped))
        self._report_faults(feed, faults)

    def _find_lag(self, all_series: Collection[Series], now_s: float, window_s: float) -> list[str]:
        """Return in words that the samples are older than any that were asked for, by the clock of Prometheus."""
        newest_s = max((one.samples[-1][0] for one in all_series if one.samples), default=now_s)
        if now_s - newest_s <= window_s + self._settings.stale_after_s:
            return []
        return [f"the newest samples are {now_s - newest_s:.0f} s old, but not for Prometheus: compare the clocks"]

    def _take(self, feed: Feed, device: DeviceSamples, now_s: float) -> str:
        """Store the samples of a device; return why some were not stored, empty if all were."""
        # Samples from the future would look fresh until that time has come.
        last_s = now_s + self._settings.stale_after_s
        samples = [(time_s, value) for time_s, value in device.samples if time_s <= last_s]
        name, history = f"{feed.name} of {device.node} {device.device}", self._readings.find_history(feed)
        found: list[bool] = []
        if not self._guard.run(
            "series",
            name,
            lambda: found.append(history.merge(device.node, device.device, samples, now_s)),
            again=False,
        ):
            return f"{name}: processing it failed, see the log"
        if not all(found):
            return f"{name}: the node has more than {MAX_DEVICES} devices; {feed.remedy}"
        if len(samples) < len(device.samples):
            newest_s = max(time_s for time_s, _ in device.samples)
            return f"{name}: samples {newest_s - now_s:.0f} s in the future are ignored; compare the clocks"
        return ""

    def _report_faults(self, feed: Feed, faults: Collection[str]) -> None:
        """Count unusable series; log one of them when the first ones appear, and when there are none left."""
        self._metrics.unusable.labels(feed.name).set(len(faults))
        if faults and not self._faults.get(feed):
            self._faults[feed] = next(iter(faults))
            what = "%d series of %s cannot be used, the others are not affected; for example %s"
            self._logger.warning(what, len(faults), feed.name, clean_line(self._faults[feed]))
        elif not faults and self._faults.pop(feed, ""):
            self._logger.info("all series of %s can be used again", feed.name)

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
