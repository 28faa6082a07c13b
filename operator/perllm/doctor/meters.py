"""Looks for devices whose energy cannot be right, or is no longer measured."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from perllm.doctor.finding import name_some
from perllm.energy.devices import is_mixed
from perllm.energy.series import TimeSeries
from perllm.telemetry.feeds import Feed, NodeMetric, find_limit_w, list_feeds, list_meters
from perllm.telemetry.readings import Readings
from perllm.telemetry.settings import TelemetrySettings

_MIN_SAMPLES = 5
_LEAST_W = 0.5
"""The greatest device of a node draws more, even idle; in a unit that is a thousand times too small, less."""

_AT_ODDS = 5.0
"""Counter and power of one device differ by less, however seldom they are sampled, and units by more."""


def check_devices(readings: Readings, settings: TelemetrySettings, fleet: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the devices of the fleet, and what to do about it."""
    limits_w = {meter.name: find_limit_w(meter, settings) for meter in list_meters(settings)}
    for feed in list_feeds(settings):
        devices = _name_devices(readings, feed, fleet)
        if feed.metric is NodeMetric.LINK_SPEED:
            continue
        if feed.metric is not NodeMetric.POWER:
            yield from _check_mixed(feed, devices)
        if feed.meter:
            yield from _check_limit(feed, devices, limits_w[feed.meter])
            yield from _check_least(feed, readings, fleet)
            yield from _check_still(feed, devices)
            yield from _check_gone(feed, readings, fleet, settings.stale_after_s)
    for meter in list_meters(settings):
        yield from _check_units([feed for feed in list_feeds(settings) if feed.meter == meter.name], readings, fleet)


def _name_devices(readings: Readings, feed: Feed, fleet: Collection[str]) -> dict[str, TimeSeries]:
    history = readings.find_history(feed)
    return {
        f"{node}/{device}" if device else node: series
        for node in sorted(fleet)
        for device, series in history.devices(node).items()
    }


def _check_mixed(feed: Feed, devices: Mapping[str, TimeSeries]) -> Iterator[tuple[str, str]]:
    mixed = [name for name, series in devices.items() if is_mixed(np.array(series.values))]
    if mixed:
        advice = "several counters have one name: set config.telemetry.matchers or device_labels"
        yield f"{feed.name}: {name_some(mixed)} keeps falling, and is ignored", advice


def _check_limit(feed: Feed, devices: Mapping[str, TimeSeries], limit_w: float) -> Iterator[tuple[str, str]]:
    powers_w = {name: _find_power_w(feed, series) for name, series in devices.items()}
    impossible = [name for name, power_w in powers_w.items() if power_w > limit_w]
    if impossible:
        message = f"{feed.name}: {name_some(impossible)} draws {powers_w[impossible[0]]:.0f} W, above the limit of "
        advice = f"correct {_name_unit(feed)}, or raise max_device_power_w"
        yield f"{message}{limit_w:.0f} W, and is ignored", advice


def _check_least(feed: Feed, readings: Readings, fleet: Collection[str]) -> Iterator[tuple[str, str]]:
    powers_w = {
        node: max(map(partial(_find_power_w, feed), readings.find_history(feed).devices(node).values()), default=0.0)
        for node in sorted(fleet)
    }
    few = [node for node, power_w in powers_w.items() if 0.0 < power_w < _LEAST_W]
    if few:
        message = f"{feed.name}: no device of {name_some(few)} draws more than {powers_w[few[0]]:.2g} W"
        yield message, f"correct {_name_unit(feed)}"


def _name_unit(feed: Feed) -> str:
    return "energy_unit_j" if feed.metric is NodeMetric.ENERGY else "power_unit_w"


def _check_still(feed: Feed, devices: Mapping[str, TimeSeries]) -> Iterator[tuple[str, str]]:
    # Of a counter that does not rise only one sample is kept.
    is_power = feed.metric is NodeMetric.POWER
    still = [name for name, one in devices.items() if not (any(one.values) if is_power else len(one.times_s) > 1)]
    if still:
        words = "is always 0" if is_power else "does not rise"
        advice = "its exporter cannot read it there: check the exporter, or add another meter"
        yield f"{feed.name}: {name_some(still)} {words}, and is ignored", advice


def _check_gone(
    feed: Feed, readings: Readings, fleet: Collection[str], stale_after_s: float
) -> Iterator[tuple[str, str]]:
    gone = []
    for node in sorted(fleet):
        devices = readings.find_history(feed).devices(node)
        newest_s = max((series.times_s[-1] for series in devices.values()), default=0.0)
        gone += [f"{node}/{name}" for name, series in devices.items() if series.times_s[-1] < newest_s - stale_after_s]
    if gone:
        message = f"{feed.name}: {name_some(gone)} is no longer measured, although others of the node are"
        yield message, "if the device is still there, check its exporter; energies of that time are coarse"


def _check_units(feeds: Sequence[Feed], readings: Readings, fleet: Collection[str]) -> Iterator[tuple[str, str]]:
    """Compare the counters of a meter with its gauges, if it has both."""
    means_w = [
        {name: _find_mean_w(feed, one) for name, one in _name_devices(readings, feed, fleet).items()} for feed in feeds
    ]
    if len(means_w) < 2:
        return
    counted_w, drawn_w = means_w
    for name in sorted(counted_w.keys() & drawn_w.keys()):
        low_w, high_w = sorted((counted_w[name], drawn_w[name]))
        if 0.0 < low_w < high_w / _AT_ODDS:
            message = (
                f"{feeds[0].name}: {name} uses {counted_w[name]:.3g} W by its counter, {drawn_w[name]:.3g} W by its "
            )
            yield f"{message}power; the counter is believed", "correct energy_unit_j or power_unit_w"
            return


def _find_mean_w(feed: Feed, series: TimeSeries) -> float:
    """Return the mean power of a device; 0 if there are too few samples."""
    if len(series.times_s) < _MIN_SAMPLES:
        return 0.0
    if feed.metric is not NodeMetric.ENERGY:
        return float(np.mean(series.values))
    return float(np.maximum(np.diff(series.values), 0.0).sum()) / (series.times_s[-1] - series.times_s[0])


def _find_power_w(feed: Feed, series: TimeSeries) -> float:
    """Return the median power of the samples; 0 if there are too few."""
    times_s, values = np.array(series.times_s), np.array(series.values)
    if feed.metric is NodeMetric.ENERGY:
        values = np.diff(values) / np.diff(times_s)
    return float(np.median(values)) if len(values) else 0.0
