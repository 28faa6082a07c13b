"""How the energy of a node follows from what measures its devices."""

from collections.abc import Iterable
from math import inf

import numpy as np
import pytest

from perllm.energy.history import EnergyHistory
from perllm.energy.meters import SERVER, Meter
from perllm.energy.presence import Presence

ABSENT_AFTER_S = 60.0


def meter_of(name: str = "dcgm", part: str = "gpu", max_device_power_w: float = 2000.0) -> Meter:
    return Meter.build(name, part, max_device_power_w, length_s=inf)


def history_of(*meters: Meter) -> EnergyHistory:
    return EnergyHistory(meters, absent_after_s=ABSENT_AFTER_S)


def count(meter: Meter, device: str, power_w: float, times_s: Iterable[float], start_j: float = 0.0) -> None:
    meter.counters.merge("n", device, [(time_s, start_j + power_w * time_s) for time_s in times_s], 0.0)


def gauge(meter: Meter, device: str, power_w: float, times_s: Iterable[float]) -> None:
    meter.gauges.merge("n", device, [(time_s, power_w) for time_s in times_s], 0.0)


def energy_j(history: EnergyHistory, start_s: float, end_s: float) -> float | None:
    """Return the energy between two samples; None if it is not known."""
    found = history.intervals("n", start_s, end_s)
    if not len(found.times_s) or found.times_s[0] > start_s or found.times_s[-1] < end_s:
        return None
    inside = (found.times_s[:-1] >= start_s) & (found.times_s[1:] <= end_s)
    total_j = float(found.energy_j[inside].sum())
    return None if np.isnan(total_j) else pytest.approx(total_j)


def test_devices_of_a_node_are_added_up() -> None:
    meter = meter_of()
    count(meter, "a", 100, [0, 2, 4])
    count(meter, "b", 50, [1, 3, 5])

    found = history_of(meter).intervals("n")

    assert found.times_s.tolist() == [1, 2, 3, 4]
    assert found.energy_j.tolist() == [150, 150, 150]


@pytest.mark.parametrize("jump_j", [-150.0, 5000.0])
def test_reset_or_impossible_jump_spoils_only_its_interval(jump_j: float) -> None:
    meter = meter_of()
    meter.counters.merge("n", "a", [(0, 100), (1, 200), (2, 200 + jump_j), (3, 300 + jump_j)], 0.0)

    assert np.isnan(history_of(meter).intervals("n").energy_j).tolist() == [False, True, False]


def test_power_fills_in_for_a_counter_that_was_reset() -> None:
    meter = meter_of()
    meter.counters.merge("n", "a", [(0, 1000), (10, 2000), (20, 10), (30, 1010)], 0.0)
    gauge(meter, "a", 100, range(0, 31, 5))

    assert energy_j(history_of(meter), 0, 30) == 3000


def test_without_a_counter_energy_is_the_integral_of_power_over_the_true_times() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 10), (4, 30), (10, 10)], 0.0)

    assert history_of(meter).intervals("n").energy_j.tolist() == [80, 120]


def test_impossible_power_is_left_out() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 10), (5, 4e9), (10, -1), (15, 10)], 0.0)

    assert energy_j(history_of(meter), 0, 15) == 150


def test_gap_in_the_only_power_gauge_is_unknown_and_not_interpolated() -> None:
    meter = meter_of()
    gauge(meter, "a", 10, [*range(0, 31, 5), *range(100, 131, 5)])
    history = history_of(meter)

    assert energy_j(history, 0, 30) == 300
    assert energy_j(history, 20, 110) is None
    assert energy_j(history, 100, 130) == 300


def test_gap_in_one_of_two_power_gauges_is_the_absence_of_that_gpu() -> None:
    meter = meter_of()
    gauge(meter, "a", 10, range(0, 131, 5))
    gauge(meter, "b", 10, [*range(0, 31, 5), *range(100, 131, 5)])
    history = history_of(meter)

    assert energy_j(history, 50, 90) == 400
    assert history.intervals("n", 0, 130).changes_s.tolist() == [30, 100]


def test_a_counter_bridges_the_time_without_samples() -> None:
    meter = meter_of()
    count(meter, "a", 10, [0, 10, 200, 210])

    assert energy_j(history_of(meter), 0, 210) == 2100


def test_a_vanished_gpu_spoils_nothing_and_counts_until_then() -> None:
    meter = meter_of()
    count(meter, "a", 300, range(0, 601, 10))
    count(meter, "b", 50, range(0, 301, 10))
    history = history_of(meter)

    assert energy_j(history, 500, 560) == 300 * 60
    assert energy_j(history, 100, 200) == 350 * 100
    assert history.intervals("n", 250, 350).changes_s.tolist() == [300]
    assert history.covers("n", 600)


def test_an_added_gpu_counts_from_its_first_sample() -> None:
    meter = meter_of()
    count(meter, "a", 300, range(0, 601, 10))
    count(meter, "b", 50, range(300, 601, 10))
    history = history_of(meter)

    assert energy_j(history, 100, 200) == 300 * 100
    assert energy_j(history, 400, 500) == 350 * 100


def test_samples_that_are_merely_late_are_awaited() -> None:
    meter = meter_of()
    count(meter, "a", 300, range(0, 101, 10))
    count(meter, "b", 50, range(0, 61, 15))
    history = history_of(meter)

    assert not history.covers("n", 90)
    assert energy_j(history, 70, 90) is None
    count(meter, "b", 50, [75, 90])
    assert history.covers("n", 90)
    assert energy_j(history, 70, 90) == 350 * 20


def test_a_counter_that_has_stopped_gives_way_to_the_gauge() -> None:
    meter = meter_of()
    count(meter, "a", 100, [0])
    gauge(meter, "a", 40, range(0, 201, 10))

    assert energy_j(history_of(meter), 0, 200) == 40 * 200


def test_a_part_that_is_no_longer_measured_holds_up_no_task_and_draws_no_power() -> None:
    gpu, cpu = meter_of("dcgm", "gpu"), meter_of("kepler", "cpu")
    count(gpu, "0", 100, range(0, 601, 10))
    count(cpu, "package-0", 50, range(0, 301, 10))
    history = history_of(gpu, cpu)

    assert history.covers("n", 590)
    assert energy_j(history, 400, 500) == 100 * 100
    assert history.find_power_w("n") == (600, 100)


@pytest.mark.parametrize("part", ["cpu", SERVER])
def test_a_counter_that_never_rises_measures_nothing_and_holds_up_nothing(part: str) -> None:
    gpu, dead = meter_of("dcgm", "gpu"), meter_of("kepler", part)
    count(gpu, "0", 100, range(0, 1001, 10))
    count(dead, "package-0", 0, range(950, 1001, 10), start_j=7)
    history = history_of(dead, gpu)

    assert history.covers("n", 1000)
    assert energy_j(history, 900, 1000) == 100 * 100
    assert history.intervals("n").meters == ("dcgm",)


def test_power_that_is_always_zero_is_unknown_and_not_zero_joules() -> None:
    board, server = meter_of("jetson", "board"), meter_of("redfish", SERVER)
    gauge(board, "a", 0, range(0, 101, 10))
    assert energy_j(history_of(board), 0, 100) is None
    assert history_of(board).find_power_w("n") is None

    gauge(server, "b", 70, range(0, 101, 10))
    assert energy_j(history_of(board, server), 0, 100) == 70 * 100

    gauge(board, "rail", 20, range(0, 101, 10))
    assert energy_j(history_of(board), 0, 100) == 20 * 100


def test_gauges_named_otherwise_than_the_counters_do_not_count_twice() -> None:
    meter = meter_of()
    count(meter, "package-0", 100, range(0, 101, 10))
    gauge(meter, "GPU-1", 100, range(0, 101, 10))

    assert energy_j(history_of(meter), 0, 100) == 100 * 100


def test_several_counters_under_one_name_are_unknown() -> None:
    meter = meter_of(max_device_power_w=1e9)
    count(meter, "a", 100, range(0, 101, 10))
    count(meter, "a", 50, range(5, 101, 10), start_j=9000)

    assert np.isnan(history_of(meter).intervals("n").energy_j).all()


def test_of_two_meters_of_the_same_part_the_first_counts() -> None:
    dcgm, kepler = meter_of("dcgm"), meter_of("kepler")
    count(dcgm, "GPU-1", 100, range(0, 101, 10))
    count(kepler, "0", 99, range(0, 101, 10))
    history = history_of(dcgm, kepler)

    assert energy_j(history, 0, 100) == 100 * 100
    assert history.intervals("n").meters == ("dcgm",)


def test_the_second_meter_of_a_part_fills_in_where_the_first_was_not_there() -> None:
    dcgm, kepler = meter_of("dcgm"), meter_of("kepler")
    count(dcgm, "GPU-1", 100, range(200, 301, 10))
    count(kepler, "0", 99, range(0, 301, 10))
    history = history_of(dcgm, kepler)

    assert energy_j(history, 0, 100) == 99 * 100
    assert history.intervals("n", 0, 100).meters == ("kepler",)


def test_a_meter_that_has_stopped_gives_way_to_the_next() -> None:
    dcgm, kepler = meter_of("dcgm"), meter_of("kepler")
    count(dcgm, "GPU-1", 100, range(0, 101, 10))
    count(kepler, "0", 99, range(0, 301, 10))
    history = history_of(dcgm, kepler)

    assert history.intervals("n").meters == ("kepler",)
    assert history.find_power_w("n") == (300, 99)


def test_different_parts_are_added_up() -> None:
    nvidia, amd = meter_of("dcgm", "nvidia"), meter_of("rocm", "amd")
    count(nvidia, "0", 100, range(0, 101, 10))
    count(amd, "0", 70, range(0, 101, 10))

    assert energy_j(history_of(nvidia, amd), 0, 100) == 170 * 100
    assert history_of(nvidia, amd).find_power_w("n") == (100, 170)


def test_a_server_contains_its_parts_so_that_only_the_first_of_them_counts() -> None:
    gpu, cpu, server = meter_of("dcgm", "gpu"), meter_of("kepler", "cpu"), meter_of("redfish", SERVER, 50_000)
    count(gpu, "0", 100, range(0, 101, 10))
    count(cpu, "0", 50, range(0, 101, 10))
    count(server, "0", 5000, range(0, 101, 10))

    assert energy_j(history_of(server, gpu, cpu), 0, 100) == 5000 * 100
    assert energy_j(history_of(gpu, server, cpu), 0, 100) == 150 * 100


def test_a_node_with_one_part_is_not_measured_by_another_while_that_has_a_gap() -> None:
    gpu, server = meter_of("dcgm", "gpu"), meter_of("redfish", SERVER, 50_000)
    gpu.counters.merge("n", "0", [(0, 1000), (10, 2000), (20, 0), (30, 1000)], 0.0)
    count(server, "0", 500, range(0, 31, 10))

    assert energy_j(history_of(gpu, server), 0, 30) is None


def test_window_is_covered_once_a_sample_after_its_end_has_come() -> None:
    meter = meter_of()
    count(meter, "a", 10, [1, 2])
    history = history_of(meter)
    assert not history.covers("n", 2.5)

    count(meter, "a", 10, [3])
    assert history.covers("n", 2.5)
    assert not history.covers("unknown", 2.5)


def test_power_that_no_device_can_draw_is_no_figure() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 100.0), (10, 9.2e18)], 0.0)
    assert history_of(meter).find_power_w("n") is None

    count(meter, "a", 70, [0, 10])
    assert history_of(meter).find_power_w("n") == (10, 70)


def test_power_of_a_gauge_that_has_stopped_is_the_rate_of_the_counter() -> None:
    meter = meter_of()
    gauge(meter, "a", 100, [0, 10])
    count(meter, "a", 70, range(0, 201, 10))

    assert history_of(meter).find_power_w("n") == (200, 70)


def test_a_node_that_nothing_measures_has_no_energy() -> None:
    history = history_of(meter_of())

    assert not len(history.intervals("n").times_s)
    assert history.find_power_w("n") is None


def test_power_steps_where_a_task_begins_and_ends_between_samples() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 10), (10, 100), (20, 10)], 0.0)

    found = history_of(meter).intervals("n", presence=lambda: Presence.build([2.0], [11.0]))

    assert found.times_s.tolist() == [0, 2, 10, 11, 20]
    assert found.energy_j.tolist() == [20, 800, 100, 90]
    assert found.steps_s.tolist() == [2, 11]


def test_a_task_between_two_samples_draws_what_others_did_when_they_were_sampled() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 10), (10, 100), (20, 10), (30, 10)], 0.0)
    presence = Presence.build([8.0, 22.0], [12.0, 25.0])

    found = history_of(meter).intervals("n", 20, 30, lambda: presence)

    assert found.times_s.tolist() == [20, 22, 25, 30]
    assert found.energy_j.tolist() == [20, 300, 50]


def test_two_tasks_are_not_taken_for_one_and_an_unsampled_number_for_the_nearest() -> None:
    meter = meter_of()
    meter.gauges.merge("n", "a", [(0, 10), (10, 100), (20, 150), (30, 10), (60, 10)], 0.0)
    presence = Presence.build([8.0, 18.0, 18.0, *[40.0] * 3], [12.0, 22.0, 22.0, *[50.0] * 3])

    assert history_of(meter).intervals("n", 30, 60, lambda: presence).energy_j.tolist() == [100, 1500, 100]
