import numpy as np
import pytest

from perllm.learning.promises import Promises

CHANCES = (0.1, 0.3, 0.5, 0.8, 0.95)


def teach(promises: Promises, slope: float, intercept: float, count: int = 3000) -> None:
    """Let tasks of given chances be in time as often as the line through the log-odds says."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        chance = float(rng.uniform(0.02, 0.98))
        odds = intercept + slope * np.log(chance / (1.0 - chance))
        promises.learn(chance, is_in_time=bool(rng.random() < 1.0 / (1.0 + np.exp(-odds))))


def test_without_outcomes_a_promise_is_the_chance_itself() -> None:
    assert [Promises().read(chance) for chance in (0.0, *CHANCES, 1.0)] == pytest.approx([0.0, *CHANCES, 1.0])


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, 0.5), (1.4, -0.7)])
def test_of_tasks_that_are_promised_p_a_share_of_p_is_in_time(slope: float, intercept: float) -> None:
    promises = Promises()
    teach(promises, slope, intercept)
    odds = np.array([intercept + slope * np.log(chance / (1.0 - chance)) for chance in CHANCES])
    assert [promises.read(chance) for chance in CHANCES] == pytest.approx(1.0 / (1.0 + np.exp(-odds)), abs=0.06)


def test_promises_rise_with_the_chance_whatever_happened() -> None:
    promises = Promises()
    for _ in range(500):
        promises.learn(0.999, is_in_time=False)
        promises.learn(0.001, is_in_time=True)
    read = [promises.read(chance) for chance in CHANCES]
    assert read == sorted(read)


def test_few_outcomes_change_little() -> None:
    promises = Promises()
    for _ in range(3):
        promises.learn(0.9, is_in_time=False)
    assert promises.read(0.9) > 0.7
