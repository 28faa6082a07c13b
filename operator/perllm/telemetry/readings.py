"""The latest samples of all nodes, and the figures computed from them."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import pairwise

from perllm.energy.history import Counter, CounterHistory
from perllm.telemetry.snapshot import MISSING, Figure, NodeFigures, Quality

_BITS_PER_BYTE = 8
# Long enough to smooth out single bursts, short enough to notice a download that has just begun.
_RATE_WINDOW_S = 10.0
_MAX_ENERGY_SAMPLES = 8192
_MAX_RECENT_SAMPLES = 32

Sample = tuple[float, float]


class NodeMetric(StrEnum):
    """The metrics that are read for every node."""

    ENERGY = "energy"
    POWER = "power"
    RECEIVED = "received"
    LINK_SPEED = "link_speed"


class Readings:
    """Holds the samples of all metrics, wherever they come from."""

    def __init__(self, *, history_s: float, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s
        self.energy = CounterHistory(history_s, _MAX_ENERGY_SAMPLES, keep_repeated=False)
        # A stale figure is still reported, so its samples must be kept beyond the moment at which it becomes stale.
        kept_s = max(history_s, 2 * stale_after_s)
        self._counters = {
            NodeMetric.ENERGY: self.energy,
            **{
                metric: CounterHistory(kept_s, _MAX_RECENT_SAMPLES, keep_repeated=True)
                for metric in (NodeMetric.POWER, NodeMetric.RECEIVED, NodeMetric.LINK_SPEED)
            },
        }

    def add(self, metric: NodeMetric, node: str, device: str, samples: Iterable[Sample], now_s: float) -> None:
        """Add samples of one device of a node; samples that are already known are ignored."""
        self._counters[metric].merge(node, device, samples, now_s)

    def forget(self, metric: NodeMetric, now_s: float) -> None:
        """Drop samples of a metric that are too old to matter."""
        self._counters[metric].forget(now_s)

    def figures(self, node: str, now_s: float) -> NodeFigures:
        """Return the figures of a node, with their quality as of now."""
        speeds = {
            device: counter
            for device, counter in self._present(NodeMetric.LINK_SPEED, node).items()
            # Interfaces of unknown speed report -1.
            if counter.values[-1] > 0
        }
        received = self._present(NodeMetric.RECEIVED, node)
        link = _choose_link(speeds, received)
        return NodeFigures(
            power_w=self._judge(_sum_last(self._present(NodeMetric.POWER, node)), now_s),
            bandwidth_total_bps=self._judge(_last_bits(speeds.get(link)), now_s),
            bandwidth_used_bps=self._judge(_rate_bits(received.get(link)), now_s),
        )

    def _present(self, metric: NodeMetric, node: str) -> Mapping[str, Counter]:
        """Return the node's devices, without those whose samples ended while others went on."""
        devices = self._counters[metric].devices(node)
        newest_s = max((counter.times_s[-1] for counter in devices.values() if counter.times_s), default=0.0)
        return {
            device: counter
            for device, counter in devices.items()
            if counter.times_s and counter.times_s[-1] >= newest_s - self._stale_after_s
        }

    def _judge(self, sample: Sample | None, now_s: float) -> Figure:
        if sample is None:
            return MISSING
        sampled_s, value = sample
        # Distance in both directions: after a clock was set back, a sample from the future would stay fresh for long.
        is_fresh = abs(now_s - sampled_s) <= self._stale_after_s
        return Figure(value, sampled_s, Quality.FRESH if is_fresh else Quality.STALE)


def _choose_link(speeds: Mapping[str, Counter], received: Mapping[str, Counter]) -> str:
    """Return the fastest interface; among those of equal or unknown speed, the one that has received most."""
    devices = speeds.keys() | received.keys()

    def rank(device: str) -> tuple[float, float, str]:
        speed = speeds[device].values[-1] if device in speeds else 0.0
        return speed, received[device].values[-1] if device in received else 0.0, device

    return max(devices, key=rank, default="")


def _sum_last(devices: Mapping[str, Counter]) -> Sample | None:
    if not devices:
        return None
    oldest_s = min(counter.times_s[-1] for counter in devices.values())
    return oldest_s, sum(counter.values[-1] for counter in devices.values())


def _last_bits(counter: Counter | None) -> Sample | None:
    return None if counter is None else (counter.times_s[-1], counter.values[-1] * _BITS_PER_BYTE)


def _rate_bits(counter: Counter | None) -> Sample | None:
    """Return bits per second over the last seconds; steps in which the counter was reset are left out."""
    if counter is None or len(counter.times_s) < 2:
        return None
    end_s = counter.times_s[-1]
    recent = counter.select(min(end_s - _RATE_WINDOW_S, counter.times_s[-2]), end_s)
    steps = [
        (later_s - earlier_s, after - before)
        for (earlier_s, before), (later_s, after) in pairwise(zip(recent.times_s, recent.values, strict=True))
        if after >= before
    ]
    if not steps:
        return None
    return end_s, _BITS_PER_BYTE * sum(size for _, size in steps) / sum(length_s for length_s, _ in steps)
