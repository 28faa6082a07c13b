"""The energy of all nodes in the last minutes, from whatever measures them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from perllm.energy.devices import Limits, fill_gaps, integrate_power, measure_counter
from perllm.energy.intervals import EMPTY, DeviceEnergy, Intervals, sum_devices
from perllm.energy.presence import NOBODY, Presence
from perllm.energy.series import DeviceHistory, TimeSeries

SERVER = "server"
"""The part of a node that contains all others: a meter of it counts alone."""

_MAX_SAMPLES = 8192


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

    def read(self, node: str, absent_after_s: float) -> Iterator["_Device"]:
        """Yield the devices of a node.

        A device counts by its counter, or by its gauge if it has no counter, or one that has stopped. Gauges whose
        names have nothing in common with those of the counters may be of the same devices, so they do not count.
        """
        counters, gauges = self.counters.devices(node), self.gauges.devices(node)
        if counters and not counters.keys() & gauges.keys():
            gauges = {}
        for name in sorted(counters.keys() | gauges.keys()):
            counter, gauge = counters.get(name), gauges.get(name)
            if counter and gauge and counter.times_s[-1] < gauge.times_s[-1] - absent_after_s:
                counter = None
            yield _Device(self, counter, gauge)


@dataclass(frozen=True, slots=True)
class _Device:
    """The samples of one device: a counter, a gauge, or both."""

    meter: Meter
    counter: TimeSeries | None
    gauge: TimeSeries | None

    @property
    def series(self) -> TimeSeries:
        """The samples that decide how far the energy is known."""
        series = self.gauge if self.counter is None else self.counter
        assert series is not None
        return series

    @property
    def first_s(self) -> float:
        return self.series.times_s[0]

    @property
    def last_s(self) -> float:
        return self.series.times_s[-1]

    def measure(self, start_s: float, end_s: float, absent_after_s: float, presence: Presence) -> DeviceEnergy:
        """Return the energy between the samples that cover the window."""
        series = self.series.select(start_s, end_s)
        first_s, last_s = series.times_s[0], series.times_s[-1]
        limits = Limits(self.meter.max_device_power_w, absent_after_s)
        if self.counter is None:
            return DeviceEnergy(integrate_power(self.series, (start_s, end_s), limits, presence), first_s, last_s)
        if len(series.times_s) < 2:
            return DeviceEnergy((), first_s, last_s)
        counted = measure_counter(series, limits.max_power_w)
        if self.gauge is not None and np.isnan(counted.energy_j).any():
            counted = fill_gaps(counted, integrate_power(self.gauge, (first_s, last_s), limits, presence))
        return DeviceEnergy((counted,), first_s, last_s)

    def find_power_w(self) -> tuple[float, float] | None:
        """Return the time of the latest power and the power; None if there is no such figure."""
        if self.gauge is not None:
            return self.gauge.times_s[-1], self.gauge.values[-1]
        if len(self.series.times_s) < 2:
            return None
        latest = measure_counter(self.series.select(self.series.times_s[-2], math.inf), self.meter.max_device_power_w)
        power_w = latest.energy_j[-1] / (latest.times_s[-1] - latest.times_s[-2])
        return None if math.isnan(power_w) else (self.last_s, float(power_w))


class EnergyHistory:
    """Chooses, for each node, the meters that count, and adds up their devices.

    Args:
        meters: All meters, the preferred ones first. Of several with the same part the first one that covers a window
            counts. Different parts are added up, except that ``server`` contains all others: of it and the others, the
            one that comes first counts.
        absent_after_s: A device without samples for as long, while others have some, is absent.
    """

    def __init__(self, meters: Sequence[Meter], *, absent_after_s: float) -> None:
        self._meters = meters
        self._absent_after_s = absent_after_s

    def intervals(
        self, node: str, start_s: float = -math.inf, end_s: float = math.inf, presence: Presence = NOBODY
    ) -> Intervals:
        """Return the node's energy between the samples that cover the window, as far as there are any.

        The presence of tasks there says when the power of devices without a counter may have changed.
        """
        chosen = [self._choose(devices, start_s, end_s) for devices in self._find_parts(node).values()]
        return self._measure([device for devices in chosen for device in devices], start_s, end_s, presence)

    def covers(self, node: str, end_s: float) -> bool:
        """Whether all samples up to ``end_s`` are known, so that there is no reason to wait longer."""
        covered_s = self.find_covered_s(node)
        return covered_s is not None and covered_s >= end_s

    def find_covered_s(self, node: str) -> float | None:
        """Return the time up to which all samples of a node are known; None if it is not measured."""
        return min(
            (
                max(min(device.last_s for device in self._present(devices)) for devices in meters)
                for meters in self._find_parts(node).values()
            ),
            default=None,
        )

    def find_power_w(self, node: str) -> tuple[float, float] | None:
        """Return the power of the node in watts, after the time of its oldest part; None if it is not measured."""
        chosen = [meters[0] for meters in self._find_parts(node).values()]
        found = [device.find_power_w() for devices in chosen for device in self._present(devices)]
        known = [one for one in found if one is not None]
        if not known:
            return None
        return min(time_s for time_s, _ in known), sum(power_w for _, power_w in known)

    def _find_parts(self, node: str) -> Mapping[str, list[list[_Device]]]:
        """Return the parts of a node that count, each with the devices of its meters in order of preference."""
        parts: dict[str, list[list[_Device]]] = {}
        for meter in self._meters:
            devices = list(meter.read(node, self._absent_after_s))
            overlaps = parts and meter.part not in parts and (SERVER in parts or meter.part == SERVER)
            if devices and not overlaps:
                parts.setdefault(meter.part, []).append(devices)
        newest_s = max((_find_last_s(devices) for meters in parts.values() for devices in meters), default=0.0)
        for meters in parts.values():
            # A meter that has stopped is still better than none for the time before.
            meters.sort(key=lambda devices: _find_last_s(devices) < newest_s - self._absent_after_s)
        return parts

    def _choose(self, meters: Sequence[list[_Device]], start_s: float, end_s: float) -> list[_Device]:
        """Return the devices of the first meter that covers the window without a gap; else those of the first one."""
        if len(meters) > 1 and math.isfinite(end_s - start_s):
            for devices in meters:
                if _is_complete(self._measure(devices, start_s, end_s), start_s, end_s):
                    return devices
        return meters[0]

    def _measure(
        self, devices: Sequence[_Device], start_s: float, end_s: float, presence: Presence = NOBODY
    ) -> Intervals:
        if not devices:
            return EMPTY
        first_s, last_s = min(device.first_s for device in devices), max(device.last_s for device in devices)
        energies = []
        for device in devices:
            measured = device.measure(start_s, end_s, self._absent_after_s, presence)
            was_added = device.first_s > first_s + self._absent_after_s
            is_gone = device.last_s < last_s - self._absent_after_s
            energies.append(replace(measured, was_added=was_added, is_gone=is_gone))
        return replace(sum_devices(energies), meters=tuple(dict.fromkeys(device.meter.name for device in devices)))

    def _present(self, devices: Sequence[_Device]) -> list[_Device]:
        """Return the devices without those whose samples ended while others went on."""
        newest_s = _find_last_s(devices)
        return [device for device in devices if device.last_s >= newest_s - self._absent_after_s]


def _find_last_s(devices: Sequence[_Device]) -> float:
    return max(device.last_s for device in devices)


def _is_complete(intervals: Intervals, start_s: float, end_s: float) -> bool:
    times_s = intervals.times_s
    is_covered = len(times_s) > 0 and times_s[0] <= start_s and end_s <= times_s[-1]
    return is_covered and not np.isnan(intervals.energy_j).any()
