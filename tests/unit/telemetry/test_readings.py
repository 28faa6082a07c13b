import pytest

from perllm.telemetry.readings import NodeMetric, Readings
from perllm.telemetry.snapshot import MISSING, Figure, NodeFigures, Quality


@pytest.fixture
def readings() -> Readings:
    return Readings(history_s=900, stale_after_s=60)


def test_power_is_the_sum_of_all_gpus_as_old_as_the_oldest(readings: Readings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(90, 100.0), (100, 110.0)], now_s=100)
    readings.add(NodeMetric.POWER, "n", "gpu1", [(95, 50.0)], now_s=100)

    assert readings.figures("n", 100).power_w == Figure(160.0, 95, Quality.FRESH)


def test_old_figure_is_stale_and_keeps_its_value(readings: Readings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(100, 110.0)], now_s=100)

    figure = readings.figures("n", 161).power_w

    assert figure == Figure(110.0, 100, Quality.STALE)
    assert figure.fresh_value is None


def test_a_figure_is_not_fresh_until_the_clock_that_was_set_back_has_caught_up(readings: Readings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(10_000, 110.0)], now_s=10_000)

    assert readings.figures("n", 100).power_w.quality is Quality.STALE


def test_what_was_never_sampled_is_missing_not_zero(readings: Readings) -> None:
    figures = readings.figures("n", 100)

    assert figures == NodeFigures(MISSING, MISSING, MISSING)
    assert figures.age_s(100) is None


def test_removed_gpu_no_longer_counts(readings: Readings) -> None:
    readings.add(NodeMetric.POWER, "n", "old", [(10, 100.0)], now_s=100)
    readings.add(NodeMetric.POWER, "n", "new", [(100, 50.0)], now_s=100)

    assert readings.figures("n", 100).power_w.value == 50


def test_used_bandwidth_is_the_recent_rate_in_bits(readings: Readings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(0, 0), (85, 0), (90, 0), (95, 5000), (100, 10000)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == Figure(8000.0, 100, Quality.FRESH)


def test_rate_leaves_out_a_counter_reset(readings: Readings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(91, 10**9), (94, 10**9 + 3000), (97, 10), (100, 3010)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps.value == pytest.approx(8000)


def test_one_sample_is_no_rate(readings: Readings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(100, 10)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == MISSING


def test_idle_link_has_a_rate_of_zero(readings: Readings) -> None:
    readings.add(NodeMetric.RECEIVED, "n", "eth0", [(95, 10), (100, 10)], now_s=100)

    assert readings.figures("n", 100).bandwidth_used_bps == Figure(0.0, 100, Quality.FRESH)


def test_fastest_interface_stands_for_the_node(readings: Readings) -> None:
    for device, speed, rate in (("eth0", 1e8, 50.0), ("eth1", 1e9, 10.0), ("wlan0", -1.0, 0.0)):
        readings.add(NodeMetric.LINK_SPEED, "n", device, [(100, speed)], now_s=100)
        readings.add(NodeMetric.RECEIVED, "n", device, [(90, 0), (100, 10 * rate)], now_s=100)

    figures = readings.figures("n", 100)

    assert figures.bandwidth_total_bps.value == 8e9
    assert figures.bandwidth_used_bps.value == 80


def test_link_of_unknown_speed_has_no_total_bandwidth(readings: Readings) -> None:
    readings.add(NodeMetric.LINK_SPEED, "n", "eth0", [(100, -125000.0)], now_s=100)

    assert readings.figures("n", 100).bandwidth_total_bps == MISSING


def test_age_is_that_of_the_oldest_figure(readings: Readings) -> None:
    readings.add(NodeMetric.POWER, "n", "gpu0", [(80, 1.0)], now_s=100)
    readings.add(NodeMetric.LINK_SPEED, "n", "eth0", [(95, 1.0)], now_s=100)

    assert readings.figures("n", 100).age_s(100) == 20
