"""Recent samples of counters, per node and device."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perllm.energy.intervals import Intervals, join_counters


@dataclass(frozen=True, slots=True)
class Counter:
    """The samples of one counter, in order of time; times are seconds since the epoch."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def merge(self, samples: Iterable[tuple[float, float]], oldest_s: float, *, keep_repeated: bool) -> None:
        """Add samples, except those with a known timestamp and those older than ``oldest_s``."""
        for time_s, value in samples:
            index = bisect_left(self.times_s, time_s)
            is_known = index < len(self.times_s) and self.times_s[index] == time_s
            is_repeated = not keep_repeated and index > 0 and self.values[index - 1] == value
            if time_s >= oldest_s and not is_known and not is_repeated:
                self.times_s.insert(index, time_s)
                self.values.insert(index, value)

    def forget(self, oldest_s: float, max_samples: int) -> None:
        """Drop samples older than ``oldest_s``, and the oldest ones if there are more than ``max_samples``."""
        drop = max(bisect_left(self.times_s, oldest_s), len(self.times_s) - max_samples)
        if drop > 0:
            del self.times_s[:drop], self.values[:drop]

    def select(self, start_s: float, end_s: float) -> "Counter":
        """Return the samples in a window, and one on either side of it."""
        first = max(bisect_right(self.times_s, start_s) - 1, 0)
        last = bisect_left(self.times_s, end_s) + 1
        return Counter(self.times_s[first:last], self.values[first:last])


class CounterHistory:
    """Counters of all nodes and devices, with a limit on the age and number of samples.

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
        self._nodes: dict[str, dict[str, Counter]] = {}

    def merge(self, node: str, device: str, samples: Iterable[tuple[float, float]], now_s: float) -> None:
        """Add samples of one device; samples that are already known are ignored."""
        counter = self._nodes.setdefault(node, {}).setdefault(device, Counter())
        counter.merge(samples, now_s - self._length_s, keep_repeated=self._keep_repeated)

    def forget(self, now_s: float) -> None:
        """Drop samples that are too old, and devices and nodes that have none left."""
        for node, devices in list(self._nodes.items()):
            for device, counter in list(devices.items()):
                counter.forget(now_s - self._length_s, self._max_samples)
                if not counter.times_s:
                    del devices[device]
            if not devices:
                del self._nodes[node]

    def devices(self, node: str) -> Mapping[str, Counter]:
        """Return the counters of one node by device."""
        return self._nodes.get(node, {})


class EnergyHistory:
    """Recent samples of the energy counters of all nodes. Values are joules."""

    def __init__(self, counters: CounterHistory, max_device_power_w: float) -> None:
        self._counters = counters
        self._max_device_power_w = max_device_power_w

    def intervals(self, node: str, start_s: float = -math.inf, end_s: float = math.inf) -> Intervals:
        """Return the node's energy between the samples that cover the window, as far as there are any."""
        devices: Sequence[Counter] = [
            counter.select(start_s, end_s) for counter in self._counters.devices(node).values()
        ]
        return join_counters([(device.times_s, device.values) for device in devices], self._max_device_power_w)

    def covers(self, node: str, end_s: float) -> bool:
        """Whether all samples up to ``end_s`` are known, so that there is no reason to wait longer."""
        devices = self._counters.devices(node).values()
        return bool(devices) and all(device.times_s and device.times_s[-1] >= end_s for device in devices)
