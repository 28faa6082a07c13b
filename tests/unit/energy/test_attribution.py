import math
from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.api.task_status import EnergyQuality
from perllm.energy.attribution import IdlePower, Phase, Window, attribute, estimate_idle_power_w
from perllm.energy.devices import measure_counter
from perllm.energy.intervals import EMPTY, Intervals
from perllm.energy.series import TimeSeries

IDLE_W = 10.0


def counted(times_s: Sequence[float], energy_j: Sequence[float]) -> Intervals:
    return measure_counter(TimeSeries(array("d", times_s), array("d", energy_j)), max_power_w=1000)


def intervals_of(powers_w: Sequence[float], every_s: float = 1.0) -> Intervals:
    times_s, energy_j = [0.0], [0.0]
    for power_w in powers_w:
        times_s.append(times_s[-1] + every_s)
        energy_j.append(energy_j[-1] + power_w * every_s)
    return counted(times_s, energy_j)


def test_lone_task_gets_the_energy_of_its_time() -> None:
    found = attribute(intervals_of([10, 100, 100, 100, 10]), [Window("a", 1, 4)], IDLE_W)

    assert found["a"].energy_j == pytest.approx(300)
    assert found["a"].quality is EnergyQuality.MEASURED


def test_active_energy_of_a_partly_busy_interval_belongs_to_the_busy_part() -> None:
    # 100 W for half a second, then 10 W: the mean of 55 W must not be halved again.
    found = attribute(intervals_of([10, 55, 10]), [Window("a", 1, 1.5)], IDLE_W)

    assert found["a"].energy_j == pytest.approx(50)


def test_idle_power_of_an_empty_node_is_charged_to_nobody() -> None:
    found = attribute(intervals_of([10, 10, 100, 10]), [Window("a", 2, 3)], IDLE_W)

    assert found["a"].energy_j == pytest.approx(100)


def test_idle_power_that_is_shared_is_a_part_of_the_energy_of_tasks() -> None:
    found = attribute(intervals_of([10, 100, 100, 10]), [Window("a", 1, 3), Window("b", 2, 3)], IDLE_W)

    assert (found["a"].idle_j, found["b"].idle_j) == (pytest.approx(10 + 5), pytest.approx(5))


def test_tasks_share_equally_the_time_they_have_in_common() -> None:
    found = attribute(intervals_of([100] * 6), [Window("a", 0, 4), Window("b", 2, 6)], IDLE_W)

    assert found["a"].energy_j == pytest.approx(200 + 100)
    assert found["b"].energy_j == pytest.approx(100 + 200)


def test_a_phase_in_which_the_node_draws_more_has_more_of_the_active_energy_of_its_interval() -> None:
    # Of 600 J besides idle power, a second at triple power has as much as the other three together.
    reader, decoder = Window("a", 0, 1, lead=(Phase(0, 1, 1000.0, power=3.0),)), Window("b", 0, 4)
    found = attribute(intervals_of([160], every_s=4.0), [reader, decoder], IDLE_W)

    assert found["a"].energy_j == pytest.approx(310, rel=0.002)
    assert found["b"].energy_j == pytest.approx(330, rel=0.002)


def test_the_energy_of_one_task_can_be_asked_for() -> None:
    windows = [Window("a", 0, 4), Window("b", 2, 6)]
    found = attribute(intervals_of([100] * 6), windows, IDLE_W, wanted={"b"})

    assert {task: one.energy_j for task, one in found.items()} == {"b": pytest.approx(300)}


def test_running_task_takes_its_share_although_it_cannot_be_measured_yet() -> None:
    found = attribute(intervals_of([100] * 4), [Window("a", 0, 4), Window("runs", 2, math.inf)], IDLE_W)

    assert found["a"].energy_j == pytest.approx(200 + 100)
    assert found["runs"].energy_j is None


def test_few_samples_make_it_coarse() -> None:
    found = attribute(intervals_of([10, 100, 10], every_s=5), [Window("a", 5, 10)], IDLE_W)

    assert found["a"].quality is EnergyQuality.COARSE
    assert found["a"].energy_j == pytest.approx(500)


@pytest.mark.parametrize("window", [Window("a", -1, 2), Window("a", 2, 9), Window("a", 2, 2), Window("a", 3, 2)])
def test_window_that_the_samples_do_not_cover_is_missing_not_zero(window: Window) -> None:
    found = attribute(intervals_of([10, 100, 10]), [window], IDLE_W)

    assert found["a"].energy_j is None
    assert found["a"].quality is EnergyQuality.MISSING


def test_without_a_counter_everything_is_missing() -> None:
    assert attribute(EMPTY, [Window("a", 0, 1)], IDLE_W)["a"].energy_j is None


def test_gap_spoils_only_the_tasks_it_touches() -> None:
    reset = counted([0, 1, 2, 3, 4, 5], [0, 100, 200, 5, 105, 205])

    def energy_j(start_s: float, end_s: float) -> float | None:
        return attribute(reset, [Window("a", start_s, end_s)], IDLE_W)["a"].energy_j

    assert energy_j(0, 2) == pytest.approx(200)
    assert energy_j(1, 3.5) is None
    assert energy_j(3, 5) == pytest.approx(200)


def test_without_idle_power_all_energy_is_active() -> None:
    found = attribute(intervals_of([10, 55, 10]), [Window("a", 1, 1.5)], None)

    assert found["a"].energy_j == pytest.approx(55)


@given(
    st.lists(st.floats(0, 900), min_size=1, max_size=10),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 10)), min_size=1, max_size=8),
    st.none() | st.floats(0, 200),
)
def test_no_energy_is_negative_or_invented(
    powers_w: list[float], spans: list[tuple[float, float]], idle_w: float | None
) -> None:
    intervals = intervals_of(powers_w)
    windows = [Window(str(index), start, start + length) for index, (start, length) in enumerate(spans)]

    energies_j = [
        found.energy_j for found in attribute(intervals, windows, idle_w).values() if found.energy_j is not None
    ]

    assert all(energy_j >= 0 for energy_j in energies_j)
    assert sum(energies_j) <= sum(powers_w) * (1 + 1e-6) + 1e-6


def test_idle_power_is_read_where_no_task_ran() -> None:
    assert estimate_idle_power_w(intervals_of([10, 100, 100, 10]), [Window("a", 1.2, 2.5)]) == pytest.approx(10)


def test_idle_power_of_a_busy_node_is_the_one_remembered() -> None:
    idle_power, busy = IdlePower(), [Window("a", 0, math.inf)]

    idle_power.observe("n", intervals_of([100]), busy)
    assert idle_power.get("n", ()) is None
    idle_power.observe("n", intervals_of([10]), [])
    idle_power.observe("n", intervals_of([100]), busy)
    assert idle_power.get("n", ()) == pytest.approx(10)


def test_idle_power_of_a_server_is_not_that_of_its_gpus() -> None:
    idle_power = IdlePower()

    idle_power.observe("n", replace(intervals_of([10]), meters=("dcgm",)), [])

    assert idle_power.get("n", ("redfish",)) is None


def test_idle_power_is_not_misled_by_samples_whose_times_are_not_exact() -> None:
    jittered = intervals_of([10 * (0.9 if index % 2 else 1.1) for index in range(60)])

    assert estimate_idle_power_w(jittered, []) == pytest.approx(10, rel=0.02)


def test_idle_power_is_low_although_others_use_the_node_for_most_of_the_time() -> None:
    assert estimate_idle_power_w(intervals_of([200] * 150 + [10] * 30), []) == pytest.approx(10)


def test_moments_at_which_only_tasks_change_are_no_samples() -> None:
    stepped = replace(intervals_of([100] * 6), steps_s=np.array([2.0, 3.0]))

    assert attribute(stepped, [Window("a", 1, 4)], IDLE_W)["a"].quality is EnergyQuality.COARSE


def test_task_during_which_a_gpu_vanished_is_coarse() -> None:
    changed = replace(intervals_of([100] * 6), changes_s=np.array([3.5]))

    found = attribute(changed, [Window("before", 0, 3), Window("during", 3, 6)], IDLE_W)

    assert found["before"].quality is EnergyQuality.MEASURED
    assert found["during"].quality is EnergyQuality.COARSE
