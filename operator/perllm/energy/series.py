"""Recent samples of counters and gauges, per node and device."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_DEVICES = 64
"""Devices of one node that are kept per metric; twice as many as the largest servers have GPUs and interfaces."""


def _empty() -> "array[float]":
    return array("d")


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Samples in order of time; times are seconds since the epoch."""

    times_s: "array[float]" = field(default_factory=_empty)
    values: "array[float]" = field(default_factory=_empty)

    def merge(self, samples: Iterable[tuple[float, float]], oldest_s: float, *, keep_repeated: bool) -> None:
        """Add samples, except those with a known timestamp and those older than ``oldest_s``."""
        for time_s, value in samples:
            is_newest = not self.times_s or time_s > self.times_s[-1]
            index = len(self.times_s) if is_newest else bisect_left(self.times_s, time_s)
            is_known = not is_newest and self.times_s[index] == time_s
            is_repeated = not keep_repeated and index > 0 and self.values[index - 1] == value
            if time_s >= oldest_s and not is_known and not is_repeated:
                self.times_s.insert(index, time_s)
                self.values.insert(index, value)

    def forget(self, oldest_s: float, max_samples: int) -> None:
        """Drop samples older than ``oldest_s``, and the oldest ones if there are more than ``max_samples``."""
        drop = max(bisect_left(self.times_s, oldest_s), len(self.times_s) - max_samples)
        if drop > 0:
            del self.times_s[:drop], self.values[:drop]

    def select(self, start_s: float, end_s: float) -> "TimeSeries":
        """Return the samples in a window, and one on either side of it."""
        first = max(bisect_right(self.times_s, start_s) - 1, 0)
        last = bisect_left(self.times_s, end_s) + 1
        return TimeSeries(self.times_s[first:last], self.values[first:last])


class DeviceHistory:
    """One metric of all nodes and devices, with a limit on the age and number of samples.

    Args:
        length_s: How long samples are kept.
        max_samples: Maximum number of samples per device.
        keep_repeated: Whether to keep a sample whose value equals the previous one. For an energy counter it carries no
            information: a GPU always draws power, so its exporter has only repeated an earlier reading.
    """

    def __init__(self, length_s: float, max_samples: int, *, keep_repeated: bool) -> None:
        self._length_s = length_s
        self._max_samples = max_samples
        self._keep_repeated = keep_repeated
        self._nodes: dict[str, dict[str, TimeSeries]] = {}

    def merge(self, node: str, device: str, samples: Iterable[tuple[float, float]], now_s: float) -> bool:
        """Add samples of one device, except known ones; return whether there was room for the device."""
        devices = self._nodes.setdefault(node, {})
        if device not in devices and len(devices) >= MAX_DEVICES:
            return False
        series = devices.setdefault(device, TimeSeries())
        series.merge(samples, now_s - self._length_s, keep_repeated=self._keep_repeated)
        return True

    def forget(self, now_s: float) -> None:
        """Drop samples that are too old, and devices and nodes that have none left."""
        for node, devices in list(self._nodes.items()):
            for device, series in list(devices.items()):
                series.forget(now_s - self._length_s, self._max_samples)
                if not series.times_s:
                    del devices[device]
            if not devices:
                del self._nodes[node]

    def devices(self, node: str) -> Mapping[str, TimeSeries]:
        """Return the series of one node by device; none of them is empty."""
        return {device: series for device, series in self._nodes.get(node, {}).items() if series.times_s}
