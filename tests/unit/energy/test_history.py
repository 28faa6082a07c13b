import numpy as np
import pytest

from perllm.energy.history import CounterHistory, EnergyHistory
from perllm.energy.intervals import join_counters


@pytest.fixture
def counters() -> CounterHistory:
    return CounterHistory(length_s=100, max_samples=50, keep_repeated=False)


@pytest.fixture
def energy(counters: CounterHistory) -> EnergyHistory:
    return EnergyHistory(counters, max_device_power_w=1000)


def test_overlapping_answers_are_merged_by_time(counters: CounterHistory, energy: EnergyHistory) -> None:
    counters.merge("n", "gpu", [(1, 10), (3, 30)], now_s=3)
    counters.merge("n", "gpu", [(1, 10), (2, 20), (3, 30), (4, 40)], now_s=4)

    assert energy.intervals("n").times_s.tolist() == [1, 2, 3, 4]
    assert energy.intervals("n").energy_j.tolist() == [10, 10, 10]


def test_only_the_last_minutes_are_kept(counters: CounterHistory, energy: EnergyHistory) -> None:
    counters.merge("n", "gpu", [(1, 10), (99, 20), (100, 30)], now_s=100)
    counters.forget(now_s=150)
    assert energy.intervals("n").times_s.tolist() == [99, 100]

    counters.forget(now_s=500)
    assert not len(energy.intervals("n").times_s)


def test_number_of_samples_is_bounded(counters: CounterHistory, energy: EnergyHistory) -> None:
    counters.merge("n", "gpu", [(time_s, time_s) for time_s in range(90)], now_s=90)
    counters.forget(now_s=90)

    assert energy.intervals("n").times_s.tolist() == list(range(40, 90))


def test_repeated_value_is_an_old_reading_shown_again(counters: CounterHistory, energy: EnergyHistory) -> None:
    counters.merge("n", "gpu", [(0, 0), (10, 0), (20, 0), (30, 3000), (40, 3000)], now_s=40)
    counters.merge("n", "gpu", [(10, 0), (20, 0), (30, 3000), (40, 3000)], now_s=41)

    assert energy.intervals("n").times_s.tolist() == [0, 30]
    assert energy.covers("n", 30)
    assert not energy.covers("n", 35)


def test_window_is_covered_once_a_sample_after_its_end_has_come(
    counters: CounterHistory, energy: EnergyHistory
) -> None:
    counters.merge("n", "gpu", [(1, 10), (2, 20)], now_s=2)
    assert not energy.covers("n", 2.5)

    counters.merge("n", "gpu", [(3, 30)], now_s=3)
    assert energy.covers("n", 2.5)
    assert not energy.covers("unknown", 2.5)


def test_part_of_the_history_reaches_over_the_window_on_both_sides(
    counters: CounterHistory, energy: EnergyHistory
) -> None:
    counters.merge("n", "gpu", [(time_s, time_s) for time_s in range(20)], now_s=20)

    assert energy.intervals("n", 5.5, 7.5).times_s.tolist() == [5, 6, 7, 8]
    assert energy.intervals("n", 5, 7).times_s.tolist() == [5, 6, 7]


def test_devices_of_a_node_are_added_up() -> None:
    together = join_counters([([0, 2, 4], [0, 200, 400]), ([1, 3, 5], [0, 100, 200])], max_device_power_w=1000)

    assert together.times_s.tolist() == [1, 2, 3, 4]
    assert together.energy_j.tolist() == [150, 150, 150]


@pytest.mark.parametrize("jump", [-50.0, 5000.0])
def test_reset_or_impossible_jump_is_a_gap(jump: float) -> None:
    found = join_counters([([0, 1, 2, 3], [100, 200, 200 + jump, 300 + jump])], max_device_power_w=1000)

    assert np.isnan(found.energy_j).tolist() == [False, True, False]
