import json

import numpy as np
import pytest

from perllm.learning.lengths import TYPICAL_TOKENS, Length, LengthLaw, find_quantile


def median(length: Length) -> float:
    return float(np.median(length.points))


def learn(law: LengthLaw, count: int, *, hint_error: float | None = None, seed: int = 1) -> None:
    """Answers around 300 tokens, ln spread 0.5, to prompts of 1,000; hints with a log-error of their own."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        tokens = 300 * float(np.exp(rng.normal(0, 0.5)))
        hint = None if hint_error is None else tokens * float(np.exp(rng.normal(0, hint_error)))
        law.learn(1000, hint, tokens)


def test_before_anything_was_seen_a_published_trace_tells() -> None:
    assert median(LengthLaw().predict(1000, None)) == pytest.approx(TYPICAL_TOKENS, rel=0.1)


def test_the_distribution_of_answers_is_learned() -> None:
    law = LengthLaw()
    learn(law, 2000)
    length = law.predict(1000, None)
    assert median(length) == pytest.approx(300, rel=0.1)
    assert length.mean == pytest.approx(300 * np.exp(0.125), rel=0.1)
    assert length.points[-1] / length.points[0] == pytest.approx(np.exp(0.5 * 2 * 1.73), rel=0.3)


def test_answers_that_are_drawn_are_as_long_in_the_mean_as_those_that_were_seen() -> None:
    law, seen = LengthLaw(), np.exp(np.random.default_rng(1).normal(5.0, 1.0, size=4000))
    for tokens in seen:
        law.learn(1000, None, float(tokens))
    length = law.predict(1000, None)
    shares = (np.arange(1000) + 0.5) / 1000
    drawn = [find_quantile(float(share), length.centre, length.spread, law.shapes[0]) for share in shares]
    assert np.mean(drawn) == pytest.approx(seen.mean(), rel=0.02)


def test_a_wrong_beginning_is_soon_forgotten() -> None:
    law = LengthLaw()
    for _ in range(200):
        law.learn(1000, None, 5000.0)
    learn(law, 800)
    assert law.predict(1000, None).mean == pytest.approx(300 * np.exp(0.125), rel=0.5)


def test_longer_prompts_have_longer_answers_where_that_was_seen() -> None:
    law, rng = LengthLaw(), np.random.default_rng(1)
    for _ in range(1000):
        prompt = float(rng.uniform(100, 4000))
        law.learn(prompt, None, prompt / 10)
    assert median(law.predict(3000, None)) == pytest.approx(300, rel=0.1)
    assert median(law.predict(500, None)) == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize(
    ("hint_error", "spread"),
    [(0.0, (0.0, 0.1)), (0.5, (0.3, 0.4)), (3.0, (0.45, 0.55))],
    ids=["exact", "fair", "noise"],
)
def test_hints_count_as_far_as_they_have_proven_good(hint_error: float, spread: tuple[float, float]) -> None:
    law = LengthLaw()
    learn(law, 3000, hint_error=hint_error)
    assert spread[0] <= law.predict(1000, 300).spread <= spread[1]


def test_a_hint_that_is_always_twice_the_truth_is_halved() -> None:
    law, rng = LengthLaw(), np.random.default_rng(1)
    for _ in range(1000):
        tokens = float(rng.uniform(20, 1000))
        law.learn(1000, 2 * tokens, tokens)
    assert median(law.predict(1000, 400)) == pytest.approx(200, rel=0.05)


def test_answers_that_were_ended_do_not_make_answers_look_short() -> None:
    rng = np.random.default_rng(1)
    honest, deaf = LengthLaw(), LengthLaw()
    for _ in range(3000):
        tokens = 300 * float(np.exp(rng.normal(0, 0.5)))
        if tokens <= 400:
            honest.learn(1000, None, tokens)
            deaf.learn(1000, None, tokens)
        else:
            lengths, shares = honest.possible(1000, None)
            longer = np.where(lengths > 400, shares, 0.0)
            honest.learn_ended(1000, None, longer / longer.sum())
    assert median(deaf.predict(1000, None)) < 265
    assert median(honest.predict(1000, None)) == pytest.approx(300, rel=0.1)
    assert honest.predict(1000, None).mean > deaf.predict(1000, None).mean * 1.15


def test_of_two_states_that_which_has_seen_more_is_kept() -> None:
    much, little = LengthLaw(), LengthLaw()
    learn(much, 500)
    learn(little, 5, seed=2)
    state = json.loads(json.dumps(much.export_state()))
    little.import_better(state)
    assert little.predict(1000, None).points == pytest.approx(much.predict(1000, None).points)
    before = much.export_state()
    much.import_better(LengthLaw().export_state())
    assert much.export_state() == before


@pytest.mark.parametrize(
    "damage",
    [
        {"gram": [1.0]},
        {"gram": [-1.0] * 4},
        {"counts": []},
        {"counts": [0.0] * 100},
        {"scale": [float("nan"), 1.0]},
        {"scale": [0.0, 0.0]},
    ],
    ids=str,
)
def test_a_state_of_another_form_is_refused(damage: dict[str, list[float]]) -> None:
    law = LengthLaw()
    law.learn(1000, None, 100)
    state = law.export_state()
    with pytest.raises(ValueError, match=r"gram|counts|scale|not the state"):
        law.import_better([{**state[0], **damage}, state[1]])


def test_a_law_of_tasks_that_are_all_alike_never_loses_its_hold() -> None:
    law = LengthLaw()
    law._laws[0]._gram *= 1e-300  # what is left of the prior after millions of tasks
    law._laws[0]._moment *= 1e-300
    for _ in range(3):
        law.learn(1000, None, 100)
    assert median(law.predict(10, None)) == pytest.approx(100, rel=0.5)


def test_the_answers_to_several_prompts_have_the_mean_and_the_variance_of_their_sum() -> None:
    one, rng = LengthLaw(points=200).predict(1000, None), np.random.default_rng(1)
    sums = rng.choice(one.points, (20_000, 9)).sum(axis=1)

    nine = one.repeated(9)

    assert nine.mean == pytest.approx(sums.mean(), rel=0.02)
    assert nine.points.std() == pytest.approx(sums.std(), rel=0.03)
    assert nine.centre == pytest.approx(np.log(np.median(sums)), abs=0.1)
    assert nine.spread == pytest.approx(one.spread / 3)
    assert one.repeated(1) is one


@pytest.mark.parametrize("order", [("idle", "busy"), ("busy", "idle")])
def test_of_laws_about_as_well_informed_the_latest_is_restored(order: tuple[str, str]) -> None:
    law, new = LengthLaw(), LengthLaw()
    learn(law, 60)
    states = {"idle": law.export_state()}
    learn(law, 60, seed=2)
    states["busy"] = law.export_state()
    (idle, _), (busy, _) = states["idle"], states["busy"]
    assert idle is not None
    assert busy is not None
    idle["scale"][0] = busy["scale"][0]
    for name in order:
        new.import_better(states[name], {"idle": 1e6, "busy": 2e6}[name])
    assert median(new.predict(1000, None)) == pytest.approx(median(law.predict(1000, None)), rel=1e-3)
