import numpy as np
import pytest

from perllm.policy.confidence import SIGMA, find_bounds
from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from unit.policy.arms import make_arms, make_feedback, make_task


def test_what_is_known_leaves_chance_and_energy_as_expected() -> None:
    arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.2], doubt=[0.0, 0.0], plays=[1e12, 1e12])
    bounds = find_bounds(arms, 1.0)
    assert bounds.chance == pytest.approx([0.9, 0.2], abs=1e-5)
    assert bounds.saving == pytest.approx([0.0, 0.0], abs=1e-5)


def test_a_task_with_slack_favours_what_is_unknown_and_one_without_avoids_it() -> None:
    known, unknown = 0.001, 0.5
    for chance, sign in ((0.999, 1), (0.4, -1)):
        arms = make_arms(latency_s=[5, 5], hit_chance=[chance] * 2, doubt=[known, unknown], plays=[1e4, 0.1])
        bounds = find_bounds(arms, 0.5)
        assert np.sign(bounds.saving[1] - bounds.saving[0]) == sign
        assert np.sign(bounds.chance[1] - bounds.chance[0]) in (0, sign)


def test_the_radius_shrinks_with_the_root_of_plays_and_grows_with_that_of_the_logarithm_of_all() -> None:
    arms = make_arms(latency_s=[5, 5], doubt=[0.0, 0.0], plays=[100.0, 400.0])
    assert find_bounds(arms, 2.0).saving == pytest.approx(2.0 * SIGMA * np.sqrt(np.log(500) / np.array([100, 400])))


def test_without_width_nothing_is_in_doubt() -> None:
    arms = make_arms(latency_s=[5], hit_chance=[0.7], doubt=[0.8], plays=[0.1])
    assert find_bounds(arms, 0.0).chance == pytest.approx([0.7])


def test_with_one_context_per_arm_and_nothing_to_harm_or_to_pay_rent_for_it_decides_as_the_table() -> None:
    """Each arm has a law of its own, all tasks are alike and have time, slack is worth nothing in itself."""
    rng, arms, price_j, exploration = np.random.default_rng(1), 6, 1000.0, 0.1
    table = CsUcbTable(CsUcbTableParameters(constraint_weight=0.0, exploration=exploration, reference_output_j=10.0))
    cs_ucb = CsUcb(CsUcbParameters(price=10.0, confidence=10.0 * exploration / SIGMA))
    cs_ucb.import_state("m", 0, {"meanEnergyJoules": price_j / 10.0, "outcomes": 10**9})
    energies_j: list[list[float]] = [[] for _ in range(arms)]
    in_flight: list[int] = []
    decisions = []
    for step in range(600):
        flying = np.bincount(in_flight, minlength=arms)
        known = make_arms(
            latency_s=[1.0] * arms,
            marginal_energy_j=[float(np.mean(seen)) if seen else 0.0 for seen in energies_j],
            in_flight=flying.tolist(),
            plays=[len(seen) + count for seen, count in zip(energies_j, flying, strict=True)],
            doubt=[SIGMA / np.sqrt(max(len(seen), 1)) for seen in energies_j],
        )
        arm = step if step < arms else table.choose(make_task(), known).arm
        if step >= arms:
            decisions.append((arm, cs_ucb.choose(make_task(), known).arm))
        assert arm is not None
        in_flight.append(arm)
        while len(in_flight) > 3 or (step < arms and in_flight):
            ended = in_flight.pop(0)
            energies_j[ended].append(float(rng.uniform(100, 200) * (1 + ended)))
            table.learn(make_feedback(ended, energy_j=energies_j[ended][-1]))
    assert [ours for _, ours in decisions] == [theirs for theirs, _ in decisions]
    assert len(set(decisions)) > 1
