from collections.abc import Callable

import pytest

from perllm_lab.report.measures import measure
from perllm_lab.simulator.result import Fate, RunResult

IN, LATE, ENDED = Fate.IN_TIME, Fate.LATE, Fate.ENDED
NAN, INF = float("nan"), float("inf")

Builder = Callable[..., RunResult]


def test_energy_error_counts_transmission_as_true_energy(build_run: Builder) -> None:
    run = build_run([IN, IN, IN], transmission_j=100.0, forecast={"given_energy_j": [200.0, 180.0, 300.0]})
    assert measure(run).forecasts.energy_error == pytest.approx(0.1)


def test_latency_error_is_from_the_decision_of_completed_tasks(build_run: Builder) -> None:
    run = build_run([IN, LATE, ENDED], latency_s=[2.0, 2.0, 2.0], forecast={"given_latency_s": [3.0, 3.0, 99.0]})
    assert measure(run).forecasts.latency_error == 0.5


def test_coverage_tells_the_side_on_which_an_interval_fails(build_run: Builder) -> None:
    bounds = {"given_low_s": [1.0, 3.0, 1.0, 1.0, NAN], "given_high_s": [3.0, 4.0, 1.5, INF, NAN]}
    found = measure(build_run([IN] * 5, forecast=bounds)).forecasts.given_coverage
    assert found is not None
    assert (found.inside, found.below, found.above) == (0.5, 0.25, 0.25)


def test_a_scheduler_that_predicts_nothing_has_no_figures(build_run: Builder) -> None:
    found = measure(build_run([IN, IN], forecast={"hit_chance": [NAN, NAN]})).forecasts
    assert (found.energy_error, found.latency_error, found.given_coverage, found.brier) == (None, None, None, None)
    assert found.reliability == ()


def test_brier_and_reliability_judge_every_placed_task(build_run: Builder) -> None:
    found = measure(build_run([IN, ENDED, IN], forecast={"hit_chance": [0.92, 0.98, 1.0]})).forecasts
    assert found.brier == pytest.approx((0.08**2 + 0.98**2) / 3)
    (top,) = found.reliability
    assert (top.hit_share, top.tasks) == (pytest.approx(2 / 3), 3)
