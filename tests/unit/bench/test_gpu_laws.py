import sys

import numpy as np
import pytest

from bench.gpu_laws.__main__ import main
from bench.gpu_laws.fits import fit_relative
from bench.gpu_laws.readings import Readings, count_run_j, find_interval_s, find_rise_s, mean_power_w
from bench.gpu_laws.scrapes import estimate_j

IDLE_W, LOAD_W = 100.0, 500.0
RUN = (30.03, 32.03)
RUN_J = 1000.0
STEP_S = 0.1


@pytest.fixture
def readings() -> Readings:
    """Return what the meters of a GPU say about a run of 2 s, refreshed every 0.1 s, one of them a mean of a second."""
    time_s = np.arange(0.0, 60.0, 0.01)
    refreshed_s = np.floor(time_s / STEP_S + 1e-9) * STEP_S

    def count_j(until_s: np.ndarray) -> np.ndarray:
        return IDLE_W * until_s + (LOAD_W - IDLE_W) * np.clip(until_s - RUN[0], 0.0, RUN[1] - RUN[0])

    average_w = count_j(refreshed_s) - count_j(refreshed_s - 1.0)
    instant_w = (count_j(refreshed_s) - count_j(refreshed_s - STEP_S)) / STEP_S
    return Readings(time_s, count_j(refreshed_s), average_w, instant_w, np.full_like(time_s, 1980.0))


def test_a_law_is_found_again() -> None:
    batch = np.array([1.0, 2.0, 8.0, 64.0])
    fit = fit_relative([1.0, batch], 7.0 + 0.06 * batch)
    assert fit.coefficients == pytest.approx([7.0, 0.06])
    assert fit.errors == pytest.approx([0.0] * 4, abs=1e-9)


def test_small_figures_weigh_as_much_as_large_ones() -> None:
    fit = fit_relative([1.0], [1.0, 1.0, 100.0])
    assert fit.coefficients[0] < 2.0


def test_mean_power_is_exact_although_the_counter_moves_in_steps(readings: Readings) -> None:
    assert mean_power_w(readings, 10.07, 11.04) == pytest.approx(IDLE_W)
    assert mean_power_w(readings, RUN[0] + 0.1, RUN[1] - 0.1) == pytest.approx(LOAD_W)


def test_a_run_is_counted_to_its_end_although_the_counter_is_late(readings: Readings) -> None:
    assert count_run_j(readings, RUN, IDLE_W) == pytest.approx(RUN_J, rel=0.01)


def test_the_gauge_is_found_to_follow_a_load_for_a_second(readings: Readings) -> None:
    step = readings.between(RUN[0] - 2.0, RUN[1])
    assert find_rise_s(step.time_s, step.average_w, RUN[0], share=0.5) == pytest.approx(0.5, abs=STEP_S)
    assert find_interval_s(step.time_s, step.energy_j) == pytest.approx(STEP_S)


@pytest.mark.parametrize(
    ("source", "every_s", "worst"),
    [
        pytest.param("energy_j", 15.0, 0.01, id="a counter loses nothing between scrapes"),
        pytest.param("average_w", 1.0, 0.05, id="nor does a mean of a second that is seen every second"),
    ],
)
def test_energy_less_idle_is_right(readings: Readings, source: str, every_s: float, worst: float) -> None:
    energies = estimate_j(readings, source, RUN, every_s=every_s, idle_w=IDLE_W)
    assert energies == pytest.approx(RUN_J, rel=worst)


def test_a_gauge_seen_too_seldom_is_right_in_the_mean_only(readings: Readings) -> None:
    energies = estimate_j(readings, "average_w", RUN, every_s=5.0, idle_w=IDLE_W)
    assert energies.mean() == pytest.approx(RUN_J, rel=0.05)
    assert np.median(abs(energies / RUN_J - 1.0)) > 0.5


def test_a_run_shorter_than_a_scrape_loses_energy_to_the_time_around_it(readings: Readings) -> None:
    assert estimate_j(readings, "energy_j", RUN, every_s=5.0).max() < 0.7 * RUN_J


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_laws", "--out", "unused.json"])
    monkeypatch.setattr("bench.gpu_laws.__main__.NEEDED", {"no_such_module": "no-such-package"})
    with pytest.raises(SystemExit, match="no-such-package"):
        main()
