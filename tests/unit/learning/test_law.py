import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.learning.features import energy_features, latency_features
from perllm.learning.law import PooledLaw
from perllm.learning.priors import GENERIC

TRUTH = np.array([2.0, 0.5, 1.0, 0.05])
"""Seconds: start-up, per 1,000 prompt tokens, per 100 output tokens, per 100 output tokens and further task."""


def make_law(*groups: int) -> PooledLaw:
    law = PooledLaw(GENERIC.latency)
    for row, group in enumerate(groups):
        law.assign(row, group)
    return law


def observe(law: PooledLaw, row: int, truth: np.ndarray, count: int, noise: float = 0.0) -> None:
    rng = np.random.default_rng(row)
    for _ in range(count):
        x = latency_features(rng.uniform(50, 4000), rng.uniform(10, 800), rng.uniform(1, 16, 1))[0]
        law.learn(row, x, float(truth @ x) * float(rng.normal(1, noise)))


def predict(law: PooledLaw, row: int, prompt: float = 1000, output: float = 300, occupancy: float = 4) -> float:
    return float(law.predict(np.array([row]), latency_features(prompt, output, np.array([occupancy])))[0])


USUAL = float(TRUTH @ latency_features(1000, 300, np.array([4.0]))[0])


def test_features_are_those_of_continuous_batching() -> None:
    occupancy = np.array([1.0, 5.0])
    assert latency_features(2000, 300, occupancy).tolist() == [[1, 2, 3, 0], [1, 2, 3, 12]]
    assert energy_features(2000, 300, occupancy) == pytest.approx(np.array([[2, 3, 3], [2, 3, 0.6]]))


def test_a_law_without_data_is_its_prior() -> None:
    assert make_law(0).coefficients(0) == pytest.approx(np.array(GENERIC.latency))


def test_it_recovers_the_law_of_a_node_through_noise() -> None:
    law = make_law(0)
    observe(law, 0, TRUTH, 200, noise=0.1)
    assert predict(law, 0) == pytest.approx(USUAL, rel=0.05)
    assert predict(law, 0, prompt=200, output=50, occupancy=1) == pytest.approx(2.6, rel=0.15)


def test_a_node_learns_from_others_of_its_type_and_only_from_those() -> None:
    law = make_law(0, 0, 1)
    before = predict(law, 2)
    observe(law, 0, TRUTH, 50)
    assert predict(law, 1) == pytest.approx(USUAL, rel=0.1)
    assert predict(law, 2) == before


def test_a_node_that_differs_from_its_type_is_believed_after_some_tens_of_tasks() -> None:
    law = make_law(0, 0)
    observe(law, 0, TRUTH, 100)
    observe(law, 1, 3 * TRUTH, 60)
    assert predict(law, 1) == pytest.approx(3 * USUAL, rel=0.1)
    assert predict(law, 0) == pytest.approx(USUAL, rel=0.1)


def test_a_node_whose_type_turns_out_to_be_another_takes_its_data_along() -> None:
    law = make_law(0, 0, 1)
    observe(law, 0, TRUTH, 50)
    law.assign(0, 1)
    assert predict(law, 2) == pytest.approx(USUAL, rel=0.1)
    assert law.coefficients(1) == pytest.approx(np.array(GENERIC.latency))


def test_uncertainty_shrinks_with_data() -> None:
    law = make_law(0)
    x = latency_features(1000, 300, np.array([4.0]))[0]
    before = law.deviation(0, x)
    observe(law, 0, TRUTH, 20)
    assert law.deviation(0, x) < before / 3


@settings(deadline=None)
@given(
    values=st.lists(
        st.tuples(st.floats(1, 1e5), st.floats(1, 1e4), st.floats(1, 64), st.floats(0, 1e6)), min_size=1, max_size=20
    )
)
def test_no_cost_is_ever_negative_whatever_was_observed(values: list[tuple[float, float, float, float]]) -> None:
    law = PooledLaw(GENERIC.energy)
    law.assign(0, 0)
    for prompt, output, occupancy, cost in values:
        law.learn(0, energy_features(prompt, output, np.array([occupancy]))[0], cost)
    assert (law.coefficients(0) >= 0).all()


def test_moments_survive_json() -> None:
    old, new = make_law(0, 0), make_law(0, 0)
    observe(old, 0, TRUTH, 30)
    new.import_moments(0, json.loads(json.dumps(old.export_moments(0))))
    assert [predict(new, row) for row in (0, 1)] == pytest.approx([predict(old, row) for row in (0, 1)])


@pytest.mark.parametrize(
    "state",
    [
        {"gram": [1.0], "moment": [1.0] * 4},
        {"gram": [1.0] * 10, "moment": [1.0] * 3},
        {"gram": [1.0] * 10, "moment": [float("nan")] * 4},
        {"gram": ["x"] * 10, "moment": [1.0] * 4},
    ],
)
def test_moments_of_another_law_are_refused(state: dict[str, list[float]]) -> None:
    law = make_law(0)
    with pytest.raises(ValueError):  # noqa: PT011 - numpy words some of them
        law.import_moments(0, state)
    assert law.coefficients(0) == pytest.approx(np.array(GENERIC.latency))
