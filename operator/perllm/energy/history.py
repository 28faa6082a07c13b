"""The energy of all nodes in the last minutes, from the meters that count there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from perllm.energy.intervals import EMPTY, Intervals, sum_devices
from perllm.energy.meters import SERVER, Device, FindPresence, Meter, find_no_tasks


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
        self, node: str, start_s: float = -math.inf, end_s: float = math.inf, presence: FindPresence = find_no_tasks
    ) -> Intervals:
        """Return the node's energy between the samples that cover the window, as far as there are any.

        ``presence`` returns when tasks were there, so when the power may have changed. It is called only if there are
        devices without a counter.
        """
        chosen = [self._choose(devices, start_s, end_s) for devices in self._find_parts(node).values()]
        return self._measure([device for devices in chosen for device in devices], start_s, end_s, cache(presence))

    def covers(self, node: str, end_s: float) -> bool:
        """Whether all samples up to ``end_s`` are known, so that there is no reason to wait longer."""
        covered_s = self.find_covered_s(node)
        return covered_s is not None and covered_s >= end_s

    def find_covered_s(self, node: str) -> float | None:
        """Return the time up to which all samples of a node are known; None if it is not measured."""
        return min(
            (
                max(min(device.last_s for device in self._present(devices)) for devices in meters)
                for meters in self._find_present_parts(node)
            ),
            default=None,
        )

    def find_power_w(self, node: str) -> tuple[float, float] | None:
        """Return the power of the node in watts, after the time of its oldest part; None if it is not measured."""
        chosen = [meters[0] for meters in self._find_present_parts(node)]
        found = [device.find_power_w() for devices in chosen for device in self._present(devices)]
        known = [one for one in found if one is not None]
        if not known:
            return None
        return min(time_s for time_s, _ in known), sum(power_w for _, power_w in known)

    def _find_parts(self, node: str) -> Mapping[str, list[list[Device]]]:
        """Return the parts of a node that count, each with the devices of its meters in order of preference."""
        parts: dict[str, list[list[Device]]] = {}
        for meter in self._meters:
            devices = list(meter.list_devices(node, self._absent_after_s))
            overlaps = parts and meter.part not in parts and (SERVER in parts or meter.part == SERVER)
            if devices and not overlaps:
                parts.setdefault(meter.part, []).append(devices)
        newest_s = max((_find_last_s(devices) for meters in parts.values() for devices in meters), default=0.0)
        for meters in parts.values():
            # A meter that has stopped is still better than none for the time before.
            meters.sort(key=lambda devices: _find_last_s(devices) < newest_s - self._absent_after_s)
        return parts

    def _find_present_parts(self, node: str) -> list[list[list[Device]]]:
        """Return the parts of a node without those whose samples ended while others continued."""
        parts = self._find_parts(node).values()
        last_s = [max(_find_last_s(devices) for devices in meters) for meters in parts]
        return [
            meters for meters, at_s in zip(parts, last_s, strict=True) if at_s >= max(last_s) - self._absent_after_s
        ]

    def _choose(self, meters: Sequence[list[Device]], start_s: float, end_s: float) -> list[Device]:
        """Return the devices of the first meter that covers the window without a gap; else those of the first one."""
        if len(meters) > 1 and math.isfinite(end_s - start_s):
            for devices in meters:
                if _is_complete(self._measure(devices, start_s, end_s), start_s, end_s):
                    return devices
        return meters[0]

    def _measure(
        self, devices: Sequence[Device], start_s: float, end_s: float, presence: FindPresence = find_no_tasks
    ) -> Intervals:
        if not devices:
            return EMPTY
        first_s, last_s = min(device.first_s for device in devices), max(device.last_s for device in devices)
        energies = []
        for device in devices:
            measured = device.measure(start_s, end_s, presence)
            was_added = device.first_s > first_s + self._absent_after_s
            is_gone = device.last_s < last_s - self._absent_after_s
            energies.append(replace(measured, was_added=was_added, is_gone=is_gone))
        return replace(sum_devices(energies), meters=tuple(dict.fromkeys(device.meter for device in devices)))

    def _present(self, devices: Sequence[Device]) -> list[Device]:
        """Return the devices without those whose samples ended while others continued."""
        newest_s = _find_last_s(devices)
        return [device for device in devices if device.last_s >= newest_s - self._absent_after_s]


def _find_last_s(devices: Sequence[Device]) -> float:
    return max(device.last_s for device in devices)


def _is_complete(intervals: Intervals, start_s: float, end_s: float) -> bool:
    times_s = intervals.times_s
    is_covered = len(times_s) > 0 and times_s[0] <= start_s and end_s <= times_s[-1]
    return is_covered and not np.isnan(intervals.energy_j).any()
