from math import exp, log, sqrt

import pytest

from perllm_lab.report.statistics import Estimate, estimate, paired_ratio, quantile_t


@pytest.mark.parametrize(
    ("freedom", "known"), [(1, 12.7062), (4, 2.7764), (30, 2.0423), (31, 2.0395), (60, 2.0003), (1000, 1.9623)]
)
def test_quantiles_of_students_t(freedom: int, known: float) -> None:
    assert quantile_t(freedom) == pytest.approx(known, abs=1e-4)


def test_interval_of_five_seeds() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764 * sqrt(2.5 / 5)
    assert found == Estimate(3.0, pytest.approx(3 - half), pytest.approx(3 + half))


def test_one_seed_has_no_interval() -> None:
    assert estimate([7.0]) == Estimate(7.0, None, None)


def test_a_seed_without_the_figure_is_not_left_out() -> None:
    assert estimate([1.0, None]) is None


def test_a_constant_factor_between_seeds_is_certain() -> None:
    found = paired_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert found == Estimate(pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0))


def test_interval_of_a_ratio_is_on_the_log_scale() -> None:
    found = paired_ratio([1.0, 4.0], [1.0, 1.0])
    half = 12.7062 * log(4) / 2
    assert found == Estimate(pytest.approx(2.0), pytest.approx(exp(log(2) - half)), pytest.approx(exp(log(2) + half)))


def test_there_is_no_ratio_to_nothing() -> None:
    assert paired_ratio([1.0, 2.0], [0.0, 1.0]) is None
