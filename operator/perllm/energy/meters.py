"""What measures the energy of nodes, and the samples of its devices."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from perllm.energy.devices import Limits, fill_gaps, integrate_power, measure_counter
from perllm.energy.intervals import DeviceEnergy
from perllm.energy.presence import NO_TASKS, Presence
from perllm.energy.series import DeviceHistory, TimeSeries

SERVER = "server"
"""The part of a node that contains all others: a meter of it counts alone."""

_MAX_SAMPLES = 8192

FindPresence = Callable[[], Presence]


def find_no_tasks() -> Presence:
    """Return that there were no tasks."""
    return NO_TASKS


@dataclass(frozen=True, slots=True)
class Meter:
    """What measures the energy of one part of nodes, with its samples.

    Attributes:
        name: Its name, as configured.
        part: What it measures: ``server``, or some part of a node, such as its GPUs.
        max_device_power_w: A device cannot draw more, so a larger figure is an error.
        counters: Joules of each device.
        gauges: Watts of each device.
    """

    name: str
    part: str
    max_device_power_w: float
    counters: DeviceHistory = field(repr=False)
    gauges: DeviceHistory = field(repr=False)

    @classmethod
    def build(cls, name: str, part: str, max_device_power_w: float, length_s: float) -> "Meter":
        """Return a meter that keeps samples for ``length_s`` seconds."""
        counters = DeviceHistory(length_s, _MAX_SAMPLES, keep_repeated=False)
        return cls(name, part, max_device_power_w, counters, DeviceHistory(length_s, _MAX_SAMPLES, keep_repeated=True))

    def list_devices(self, node: str, absent_after_s: float) -> Iterator["Device"]:
        """Yield the devices of a node.

        A device counts by its counter, or by its gauge if it has no counter, or one that has stopped. Gauges whose
        names have nothing in common with those of the counters may be of the same devices, so they do not count.

        Everything that is on draws power, so a counter that never rises, and a gauge that is always 0, is of something
        that the exporter cannot read.
        """
        counters = {name: one for name, one in self.counters.devices(node).items() if len(one.times_s) > 1}
        gauges = {name: one for name, one in self.gauges.devices(node).items() if any(one.values)}
        if counters and not counters.keys() & gauges.keys():
            gauges = {}
        for name in sorted(counters.keys() | gauges.keys()):
            counter, gauge = counters.get(name), gauges.get(name)
            if counter and not (gauge and counter.times_s[-1] < gauge.times_s[-1] - absent_after_s):
                yield Device(self.name, Limits(self.max_device_power_w, absent_after_s), counter, gauge)
            elif gauge:
                yield Device(self.name, Limits(self.max_device_power_w, absent_after_s), None, gauge)


@dataclass(frozen=True, slots=True)
class Device:
    """The samples of one device: a counter, a gauge, or both.

    Attributes:
        meter: The name of its meter.
        limits: What can be true of it.
    """

    meter: str
    limits: Limits
    counter: TimeSeries | None
    gauge: TimeSeries | None

    @property
    def series(self) -> TimeSeries:
        """The samples that decide how far its energy is known."""
        return self.counter or self.gauge or TimeSeries()

    @property
    def first_s(self) -> float:
        """When it was first sampled."""
        return self.series.times_s[0]

    @property
    def last_s(self) -> float:
        """When it was last sampled."""
        return self.series.times_s[-1]

    def measure(self, start_s: float, end_s: float, presence: FindPresence) -> DeviceEnergy:
        """Return the energy between the samples that cover the window."""
        series = self.series.select(start_s, end_s)
        first_s, last_s = series.times_s[0], series.times_s[-1]
        if self.counter is None:
            return DeviceEnergy(
                integrate_power(self.series, (start_s, end_s), self.limits, presence()), first_s, last_s
            )
        if len(series.times_s) < 2:
            return DeviceEnergy((), first_s, last_s)
        counted = measure_counter(series, self.limits.max_power_w)
        if self.gauge is not None and np.isnan(counted.energy_j).any():
            counted = fill_gaps(counted, integrate_power(self.gauge, (first_s, last_s), self.limits, presence()))
        return DeviceEnergy((counted,), first_s, last_s)

    def find_power_w(self) -> tuple[float, float] | None:
        """Return the time of the latest power and the power; None if there is no such figure."""
        if self.gauge is not None:
            time_s, power_w = self.gauge.times_s[-1], self.gauge.values[-1]
            is_current = time_s >= self.last_s - self.limits.absent_after_s
            if is_current and 0.0 <= power_w <= self.limits.max_power_w:
                return time_s, power_w
        if self.counter is None or len(self.counter.times_s) < 2:
            return None
        latest = measure_counter(self.counter.select(self.counter.times_s[-2], math.inf), self.limits.max_power_w)
        power_w = float(latest.energy_j[-1] / (latest.times_s[-1] - latest.times_s[-2]))
        return None if math.isnan(power_w) else (self.last_s, power_w)
