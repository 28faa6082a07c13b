import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.learning.features import energy_features, latency_features
from perllm.learning.law import PooledLaw

PRIOR = (1.0, 0.4, 4.0, 0.1, 0.05)
TRUTH = np.array([2.0, 0.5, 1.0, 0.05, 0.05])
"""Seconds: start, per 1,000 prompt tokens, per 100 output tokens, per 100 output tokens and further task, trip."""

TASK = latency_features(1000, 0, 300, 4)
USUAL = float(TRUTH @ TASK)


def make_law(*groups: int) -> PooledLaw:
    law = PooledLaw(PRIOR)
    for row, group in enumerate(groups):
        law.assign(row, group)
    return law


def draw(rng: np.random.Generator) -> np.ndarray:
    return latency_features(rng.uniform(50, 4000), rng.uniform(0, 2000), rng.uniform(10, 800), rng.uniform(1, 16))


def observe(law: PooledLaw, row: int, truth: np.ndarray, count: int, noise: float = 0.0) -> None:
    rng = np.random.default_rng(row)
    for _ in range(count):
        x = draw(rng)
        law.learn(row, x, float(truth @ x) * float(np.exp(rng.normal(0, noise))))


def predict(law: PooledLaw, row: int) -> float:
    return float(law.coefficients[row] @ TASK)


def test_a_figure_far_off_is_found_by_runs_that_each_say_little_about_it() -> None:
    law, rng = make_law(0), np.random.default_rng(0)
    truth = np.array(PRIOR) * np.array([1.0, 50.0, 1.0, 1.0, 1.0])
    for _ in range(200):
        x = latency_features(rng.uniform(5, 40), 0.0, rng.uniform(20, 100), rng.uniform(1, 4))
        law.learn(0, x, float(truth @ x) * float(np.exp(rng.normal(0, 0.1))))
    assert law.coefficients[0, 1] == pytest.approx(truth[1], rel=0.3)


def test_a_type_many_times_as_fast_as_its_figures_is_known_from_tasks_that_are_all_alike() -> None:
    law, truth = make_law(0), np.array(PRIOR) / 20.0
    for _ in range(30):
        law.learn(0, TASK, float(truth @ TASK))
    assert predict(law, 0) == pytest.approx(float(truth @ TASK), rel=0.05)


def test_features_are_those_of_continuous_batching() -> None:
    assert latency_features(2000, 0, 300, 1).tolist() == [1, 2, 3, 0, 0]
    assert latency_features(2000, 500, 300, 5).tolist() == [1, 2.5, 3, 12, 0]
    assert latency_features(2000, 500, 300, 5, is_served=True).tolist() == [0, 2.5, 3, 12, 1]
    assert latency_features(2000, 500, 300, 5, pace=0.5).tolist() == [1, 5, 6, 24, 0]
    assert energy_features(2000, 300, 5) == pytest.approx([2, 3, 0.6])


def test_a_law_without_data_is_its_prior() -> None:
    law = make_law(0)
    law.set_prior(1, [2.0 * part for part in PRIOR])
    law.assign(1, 1)
    assert predict(law, 0) == pytest.approx(float(np.array(PRIOR) @ TASK))
    assert predict(law, 1) == pytest.approx(2 * predict(law, 0))


@pytest.mark.parametrize(("least", "is_kept"), [(None, False), ((0.25, 0.25, 0.02, 0.02, 0.02), True)])
def test_no_coefficient_of_a_type_falls_below_its_share_of_the_prior(
    least: Sequence[float] | None, is_kept: bool
) -> None:
    law = PooledLaw(PRIOR, least)
    law.assign(0, 0)
    observe(law, 0, np.array([0.0, 0.0, 1.0, 0.05, 0.0]), 300)
    assert (law.coefficients[0, :2] > 0.15 * np.array(PRIOR[:2])).all() == is_kept


def test_it_recovers_the_law_of_a_node_through_noise() -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, 300, noise=0.1)
    assert predict(law, 0) == pytest.approx(USUAL, rel=0.07)


def test_a_node_learns_from_others_of_its_type_and_only_from_those() -> None:
    law = make_law(0, 0, 1)
    before = predict(law, 2)
    observe(law, 0, TRUTH, 50)
    assert predict(law, 1) == pytest.approx(USUAL, rel=0.1)
    assert predict(law, 2) == before


def test_a_type_is_known_well_enough_after_twenty_tasks() -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, 20, noise=0.1)
    assert predict(law, 0) == pytest.approx(USUAL, rel=0.2)


def test_a_node_that_begins_to_throttle_is_followed_and_the_others_are_not_blamed() -> None:
    law = make_law(*[0] * 4)
    for row in range(4):
        observe(law, row, TRUTH, 100, noise=0.05)
    rng = np.random.default_rng(9)
    for _ in range(40):
        for row in range(4):
            x = draw(rng)
            law.learn(row, x, float(TRUTH @ x) * (1.6 if row == 0 else 1.0) * float(np.exp(rng.normal(0, 0.05))))
    assert predict(law, 0) > 1.25 * USUAL
    assert predict(law, 1) == pytest.approx(USUAL, rel=0.15)


def test_a_drift_of_the_whole_type_is_followed() -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, 300, noise=0.05)
    observe(law, 0, 2 * TRUTH, 300, noise=0.05)
    assert predict(law, 0) == pytest.approx(2 * USUAL, rel=0.12)


def test_a_node_whose_type_turns_out_to_be_another_is_predicted_by_that() -> None:
    law = make_law(0, 1)
    observe(law, 0, TRUTH, 50)
    law.assign(1, 0)
    assert predict(law, 1) == pytest.approx(USUAL, rel=0.1)


@pytest.mark.parametrize("drifts", [False, True])
def test_the_interval_holds_nine_in_ten(drifts: bool) -> None:
    law, rng, inside = make_law(0), np.random.default_rng(3), []
    for number in range(2000):
        factor = 1.5 if drifts and number >= 1000 else 1.0
        x = draw(rng)
        value = factor * float(TRUTH @ x) * float(np.exp(rng.normal(0, 0.2)))
        log_ratio = float(np.log(value / float(law.coefficients[0] @ x)))
        inside.append(law.low[0] <= log_ratio <= law.high[0])
        law.learn(0, x, value, log_ratio)
    assert np.mean(inside[500:]) == pytest.approx(0.9, abs=0.03)


def test_errors_of_runs_that_were_ended_widen_the_interval_of_the_type_and_leave_the_law() -> None:
    law = make_law(0, 0, 1)
    before = law.coefficients.copy()
    for _ in range(30):
        law.account(0, 0.9)
    assert law.scale[0] == law.scale[1] > law.scale[2]
    assert law.high[0] == law.high[1] > law.high[2]
    assert np.array_equal(law.coefficients, before)


@pytest.mark.parametrize(("absurd", "before", "after"), [(1e9, 0, 60), (1e9, 100, 20), (1e-3, 100, 40)])
def test_an_absurd_observation_is_soon_forgotten(absurd: float, before: int, after: int) -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, before, noise=0.05)
    law.learn(0, TASK, absurd)
    observe(law, 0, TRUTH, after, noise=0.05)
    assert predict(law, 0) == pytest.approx(USUAL, rel=0.1)


@settings(deadline=None)
@given(
    values=st.lists(
        st.tuples(st.floats(1, 1e5), st.floats(1, 1e4), st.floats(1, 64), st.floats(0, 1e6)), min_size=1, max_size=20
    )
)
def test_no_cost_is_ever_negative_whatever_was_observed(values: list[tuple[float, float, float, float]]) -> None:
    law = PooledLaw((60.0, 15.0, 500.0))
    law.assign(0, 0)
    for prompt, output, occupancy, cost in values:
        law.learn(0, energy_features(prompt, output, occupancy), cost)
    assert (law.coefficients[0] > 0).all()


@pytest.mark.parametrize("ended_s", [1e-6, 1.0, 1e6])
def test_no_ended_run_makes_a_law_impossible(ended_s: float) -> None:
    law = make_law(0)
    features = np.stack([latency_features(1, 0, tokens, 1) for tokens in (1.0, 100.0, 1e7)])
    for _ in range(200):
        explained = law.explain(0, features, np.array([0.3, 0.6, 0.1]), ended_s)
        assert explained.shares.sum() == pytest.approx(1.0)
        law.learn_ended(0, features, explained)
    assert np.isfinite(law.coefficients[0]).all()
    assert (law.coefficients[0] > 0).all()
    make_law(0).import_moments(0, law.export_moments(0))


def test_what_is_known_survives_json() -> None:
    old, new = make_law(0, 0), make_law(0, 0)
    observe(old, 0, TRUTH, 30)
    observe(old, 1, 1.2 * TRUTH, 30)
    for row in (0, 1):
        new.import_moments(row, json.loads(json.dumps(old.export_moments(row))))
    assert [predict(new, row) for row in (0, 1)] == pytest.approx([predict(old, row) for row in (0, 1)], rel=1e-3)
    assert (new.low[0], new.high[0], new.deviation(0)) == pytest.approx((old.low[0], old.high[0], old.deviation(0)))


@pytest.mark.parametrize("order", [("idle", "busy"), ("busy", "idle")])
def test_of_laws_about_as_well_informed_the_latest_is_restored(order: tuple[str, str]) -> None:
    """A node without tasks for weeks keeps the law of then, whose weight may be the larger by a hair."""
    old = make_law(0, 0)
    observe(old, 0, TRUTH, 100)
    idle = old.export_moments(0)
    observe(old, 1, 2.0 * TRUTH, 300)
    busy = old.export_moments(1)
    idle["errors"][0] = 1.001 * busy["errors"][0]
    new, rows, times_s = make_law(0, 0), {"idle": 0, "busy": 1}, {"idle": 1e6, "busy": 2e6}
    for name in order:
        new.import_moments(rows[name], {"idle": idle, "busy": busy}[name], times_s[name])
    assert predict(new, 1) == pytest.approx(predict(old, 1), rel=1e-3)


def test_a_restored_law_learns_on_as_if_it_had_never_been_stored() -> None:
    old, new = make_law(0), make_law(0)
    observe(old, 0, TRUTH, 30)
    new.import_moments(0, json.loads(json.dumps(old.export_moments(0))))
    for law in (old, new):
        observe(law, 0, 1.5 * TRUTH, 1)
    assert predict(new, 0) == pytest.approx(predict(old, 0), rel=1e-3)


def test_a_law_of_an_earlier_version_does_not_say_how_far_observations_scattered() -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, 30)
    state = {name: numbers for name, numbers in law.export_moments(0).items() if name != "fit"}
    new = make_law(0)
    new.import_moments(0, state)
    assert predict(new, 0) == pytest.approx(predict(law, 0), rel=1e-3)


@pytest.mark.parametrize(
    "damage",
    [
        {"gram": [1.0]},
        {"moment": [1.0] * 9},
        {"moment": [float("nan")] * 4},
        {"errors": []},
        {"ratio": ["x"]},
        {"fit": [9.0, 1e9]},
    ],
)
def test_moments_of_another_law_are_refused_and_change_nothing(damage: dict[str, list[float]]) -> None:
    law = make_law(0)
    with pytest.raises(ValueError):  # noqa: PT011 - numpy words some of them
        law.import_moments(0, {**law.export_moments(0), **damage})
    assert predict(law, 0) == pytest.approx(float(np.array(PRIOR) @ TASK))


class TestDoubt:
    def test_shrinks_as_outcomes_come_and_what_scatters_stays(self) -> None:
        law, doubts = make_law(0), []
        for count in (0, 20, 60):
            observe(law, 0, TRUTH, count, noise=0.3)
            doubts.append(float(law.doubt(TASK[None])[0]))
        assert doubts[0] > 0.5
        assert doubts[1] < 0.2 * doubts[0]
        assert doubts[2] < 0.8 * doubts[1]
        assert law.deviation(0) > doubts[2]

    def test_is_of_a_type_and_no_more_than_its_figures_leave(self) -> None:
        law = PooledLaw(PRIOR)
        law.set_prior(1, PRIOR, 0.3)
        for row, group in enumerate((0, 1)):
            law.assign(row, group)
        observe(law, 0, TRUTH, 20)
        learned, vouched = law.doubt(np.tile(TASK, (2, 1)))
        assert learned < vouched == 0.3
