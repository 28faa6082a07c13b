"""The uplink of a node: which interface it is, and how much it carries."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from perllm.energy.devices import is_mixed
from perllm.energy.series import TimeSeries

_BITS_PER_BYTE = 8
# Long enough to smooth out single bursts, short enough to notice a download that has just begun.
_RATE_WINDOW_S = 10.0
# Below this the samples say nothing about which interface is in use; what passed since the boot does.
_MIN_CARRIED = 1e6
# A bridge or a bond carries what its port does, but for some frames, and often has no speed.
_AS_MUCH = 0.9

Sample = tuple[float, float]


def choose_uplink(received: Mapping[str, TimeSeries], speeds: Mapping[str, TimeSeries]) -> str:
    """Return the interface that carries the traffic of a node; empty if there is none.

    It is the one that has received most: lately, or since the boot while all are nearly idle. Speed says nothing about
    that: virtual interfaces may report any, and an unused port that of its cable. But of interfaces that carry about
    the same, one whose speed is known is preferred, and without any traffic the fastest one.
    """
    lately = {device: _count_received(series) for device, series in received.items() if _is_usable(series)}
    if max(lately.values(), default=0.0) < _MIN_CARRIED:
        lately = {device: received[device].values[-1] for device in lately}
    enough = _AS_MUCH * max(lately.values(), default=0.0)
    candidates = {device for device, carried in lately.items() if carried >= enough} or speeds.keys()

    def rank(device: str) -> tuple[bool, float, float, str]:
        speed = speeds[device].values[-1] if device in speeds else 0.0
        return device in speeds, lately.get(device, 0.0), speed, device

    return max(candidates, key=rank, default="")


def find_rate_bps(series: TimeSeries | None) -> Sample | None:
    """Return the time of the last sample and bits per second over the last seconds; None if it is not known.

    Steps in which the counter was reset are left out.
    """
    if series is None or len(series.times_s) < 2 or not _is_usable(series):
        return None
    end_s = series.times_s[-1]
    recent = series.select(min(end_s - _RATE_WINDOW_S, series.times_s[-2]), end_s)
    steps = [
        (later_s - earlier_s, after - before)
        for (earlier_s, before), (later_s, after) in pairwise(zip(recent.times_s, recent.values, strict=True))
        if after >= before
    ]
    if not steps:
        return None
    return end_s, _BITS_PER_BYTE * sum(size for _, size in steps) / sum(length_s for length_s, _ in steps)


def find_speed_bps(series: TimeSeries | None) -> Sample | None:
    """Return the time of the last sample and the bits per second that an interface can carry."""
    return None if series is None else (series.times_s[-1], series.values[-1] * _BITS_PER_BYTE)


def _is_usable(series: TimeSeries) -> bool:
    return not is_mixed(np.array(series.values))


def _count_received(series: TimeSeries) -> float:
    return sum(max(after - before, 0.0) for before, after in pairwise(series.values))
