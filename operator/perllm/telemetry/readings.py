"""The latest samples of all nodes, and the figures computed from them."""

from collections.abc import Mapping

from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.energy.series import DeviceHistory, TimeSeries
from perllm.telemetry.feeds import Feed, NodeMetric, find_limit_w, list_meters
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import MISSING, Figure, NodeFigures, Quality
from perllm.telemetry.uplink import Sample, choose_uplink, find_rate_bps, find_speed_bps

_MAX_RECENT_SAMPLES = 32
# Interfaces of unknown speed report -1, or the same without a sign: 2^32 - 1 Mbit/s.
_MAX_LINK_BYTES_S = 1.25e12
_LINK_METRICS = (NodeMetric.RECEIVED, NodeMetric.TRANSMITTED, NodeMetric.LINK_SPEED)


class Readings:
    """Holds the samples of all feeds.

    Attributes:
        energy: The energy of all nodes.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self._stale_after_s = settings.stale_after_s
        # A stale figure is still reported, so its samples must be kept beyond the moment at which it becomes stale.
        kept_s = max(settings.history_s, 2 * settings.stale_after_s)
        self._meters = {
            meter.name: Meter.build(meter.name, meter.part, find_limit_w(meter, settings), kept_s)
            for meter in list_meters(settings)
        }
        self._links = {
            metric: DeviceHistory(kept_s, _MAX_RECENT_SAMPLES, keep_repeated=True) for metric in _LINK_METRICS
        }
        self.energy = EnergyHistory(tuple(self._meters.values()), absent_after_s=settings.stale_after_s)

    def find_history(self, feed: Feed) -> DeviceHistory:
        """Return where the samples of a feed are kept."""
        if feed.metric in self._links:
            return self._links[feed.metric]
        meter = self._meters[feed.meter]
        return meter.counters if feed.metric is NodeMetric.ENERGY else meter.gauges

    def figures(self, node: str, now_s: float) -> NodeFigures:
        """Return the figures of a node, with their quality as of now."""
        speeds = {
            device: series
            for device, series in self._present(NodeMetric.LINK_SPEED, node).items()
            if 0 < series.values[-1] <= _MAX_LINK_BYTES_S
        }
        received = self._present(NodeMetric.RECEIVED, node)
        link = choose_uplink(received, speeds)
        transmitted = self._present(NodeMetric.TRANSMITTED, node).get(link)
        return NodeFigures(
            power_w=self._judge(self.energy.find_power_w(node), now_s),
            bandwidth_total_bps=self._judge(find_speed_bps(speeds.get(link)), now_s),
            bandwidth_used_bps=self._judge(_add(find_rate_bps(received.get(link)), find_rate_bps(transmitted)), now_s),
        )

    def _present(self, metric: NodeMetric, node: str) -> Mapping[str, TimeSeries]:
        """Return the node's devices, without those whose samples ended while others went on."""
        devices = self._links[metric].devices(node)
        newest_s = max((series.times_s[-1] for series in devices.values()), default=0.0)
        return {
            device: series for device, series in devices.items() if series.times_s[-1] >= newest_s - self._stale_after_s
        }

    def _judge(self, sample: Sample | None, now_s: float) -> Figure:
        if sample is None:
            return MISSING
        sampled_s, value = sample
        # Distance in both directions: after a clock was set back, a sample from the future would stay fresh for long.
        is_fresh = abs(now_s - sampled_s) <= self._stale_after_s
        return Figure(value, sampled_s, Quality.FRESH if is_fresh else Quality.STALE)


def _add(received: Sample | None, transmitted: Sample | None) -> Sample | None:
    if received is None or transmitted is None:
        return received
    return min(received[0], transmitted[0]), received[1] + transmitted[1]
