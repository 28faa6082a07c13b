import pytest

from perllm.telemetry.feeds import NodeMetric, list_feeds
from perllm.telemetry.readings import Readings
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import MISSING, Figure, NodeFigures, Quality

SETTINGS = TelemetrySettings(history_s=900, stale_after_s=60)
FEEDS = {feed.metric: feed for feed in list_feeds(SETTINGS)}


class FilledReadings(Readings):
    """Readings of the default feeds, which a test fills."""

    def add(self, metric: NodeMetric, node: str, device: str, samples: list[tuple[float, float]], now_s: float) -> None:
        self.find_history(FEEDS[metric]).merge(node, device, samples, now_s)


@pytest.fixture
def readings() -> FilledReadings:
    return FilledReadings(SETTINGS)


def test_power_is_the_sum_of_all_gpus_as_old_as_the_oldest(readings: FilledReadings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(90, 100.0), (100, 110.0)], now_s=100)
    readings.add(NodeMetric.POWER, "n", "gpu1", [(95, 50.0)], now_s=100)

    assert readings.figures("n", 100).power_w == Figure(160.0, 95, Quality.FRESH)


def test_old_figure_is_stale_and_keeps_its_value(readings: FilledReadings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(100, 110.0)], now_s=100)

    figure = readings.figures("n", 161).power_w

    assert figure == Figure(110.0, 100, Quality.STALE)
    assert figure.fresh_value is None


def test_a_figure_is_not_fresh_until_the_clock_that_was_set_back_has_caught_up(readings: FilledReadings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(10_000, 110.0)], now_s=10_000)

    assert readings.figures("n", 100).power_w.quality is Quality.STALE


def test_what_was_never_sampled_is_missing_not_zero(readings: FilledReadings) -> None:
    figures = readings.figures("n", 100)

    assert figures == NodeFigures(MISSING, MISSING, MISSING)
    assert figures.age_s(100) is None


def test_removed_gpu_no_longer_counts(readings: FilledReadings) -> None:
    readings.add(NodeMetric.POWER, "n", "old", [(10, 100.0)], now_s=100)
    readings.add(NodeMetric.POWER, "n", "new", [(100, 50.0)], now_s=100)

    assert readings.figures("n", 100).power_w.value == 50


def test_used_bandwidth_is_the_recent_rate_in_bits(readings: FilledReadings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(0, 0), (85, 0), (90, 0), (95, 5000), (100, 10000)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == Figure(8000.0, 100, Quality.FRESH)


def test_rate_leaves_out_a_counter_reset(readings: FilledReadings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(91, 10**9), (94, 10**9 + 3000), (97, 10), (100, 3010)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps.value == pytest.approx(8000)


def test_one_sample_is_no_rate(readings: FilledReadings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(100, 10)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == MISSING


def test_idle_link_has_a_rate_of_zero(readings: FilledReadings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(95, 10), (100, 10)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == Figure(0.0, 100, Quality.FRESH)


def test_power_of_a_gpu_without_a_gauge_is_the_rate_of_its_counter(readings: FilledReadings) -> None:
    readings.add(NodeMetric.ENERGY, "n", "gpu0", [(90, 5000.0), (100, 6000.0)], now_s=100)

    assert readings.figures("n", 100).power_w == Figure(100.0, 100, Quality.FRESH)


def test_what_a_wireless_uplink_transmits_takes_from_the_same_bandwidth(readings: FilledReadings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "wlan0", [(90, 0), (100, 3e6)], now_s=100)
    readings.add(NodeMetric.TRANSMITTED, "n", "wlan0", [(90, 0), (100, 1e6)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps.value == 8 * 4e5


def test_link_of_unknown_speed_has_no_total_bandwidth(readings: FilledReadings) -> None:
    readings.add(NodeMetric.LINK_SPEED, "n", "eth0", [(100, -125000.0)], now_s=100)

    assert readings.figures("n", 100).bandwidth_total_bps == MISSING


@pytest.mark.parametrize("bytes_s", [-125_000.0, 0.0, (2**32 - 1) * 125_000.0])
def test_a_speed_that_no_link_has_is_unknown(readings: FilledReadings, bytes_s: float) -> None:
    readings.add(NodeMetric.LINK_SPEED, "n", "eth0", [(100, bytes_s)], now_s=100)

    assert readings.figures("n", 100).bandwidth_total_bps == MISSING


def test_age_is_that_of_the_oldest_figure(readings: FilledReadings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(80, 1.0)], now_s=100)
    readings.add(NodeMetric.LINK_SPEED, "n", "eth0", [(95, 1.0)], now_s=100)

    assert readings.figures("n", 100).age_s(100) == 20
