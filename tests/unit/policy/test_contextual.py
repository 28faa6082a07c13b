import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Verdict
from unit.policy.arms import make_arms, make_feedback, make_task


def policy(**parameters: float) -> CsUcb:
    return CsUcb(CsUcbParameters(**{"rent": 0.0, "confidence": 0.0, **parameters}))


def priced(price_j: float, **parameters: float) -> CsUcb:
    """Return a policy that takes a deadline for worth this much: ten times the energy of its one outcome."""
    cs_ucb = policy(price=10.0, **parameters)
    cs_ucb.learn(make_feedback(0, energy_j=price_j / 10.0))
    return cs_ucb


class TestScore:
    def test_is_the_chance_less_the_harm_and_the_energy_at_its_price(self) -> None:
        arms = make_arms(
            latency_s=[5, 5], hit_chance=[0.9, 0.8], harm=[0.3, 0.0], marginal_energy_j=[100, 400], energy_j=[7, 7]
        )
        choice = priced(1000.0, harm_weight=0.5).choose(make_task(), arms)
        assert choice.scores == pytest.approx([0.9 - 0.5 * 0.3 - 0.1, 0.8 - 0.4])
        assert (choice.arm, choice.verdict, choice.candidates) == (0, Verdict.START, 2)
        assert choice.reason == "highest net value at 1000 J a deadline"

    def test_is_the_sum_of_its_terms(self) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.8], harm=[0.3, 0.0], load=[0.5, 0.1], work=[1.0, 2.0])
        choice = priced(1000.0, rent=0.4).choose(make_task(), arms)
        assert [term.name for term in choice.terms] == ["chance", "harm", "rent", "energy"]
        assert sum(term.sign * term.values for term in choice.terms) == pytest.approx(choice.scores)

    def test_charges_rent_for_work_on_a_loaded_node(self) -> None:
        arms = make_arms(latency_s=[5, 5], load=[2.0, 0.0], work=[1.5, 1.5], marginal_energy_j=[0, 0])
        choice = priced(1000.0, rent=0.1).choose(make_task(), arms)
        assert choice.scores == pytest.approx([1 - 0.1 * 2.0 * 1.5, 1.0])

    def test_weighs_the_parts_of_energy(self) -> None:
        arms = make_arms(latency_s=[5], marginal_energy_j=[100], transmission_j=[10], idle_j=[30])
        weighted = priced(1000.0, transmission_weight=2.0, inference_weight=1.0, idle_weight=0.5)
        assert weighted.choose(make_task(), arms).scores == pytest.approx([1 - (2 * 10 + 60 + 0.5 * 30) / 1000])

    def test_counts_joules_by_what_they_cost(self) -> None:
        arms = make_arms(latency_s=[5, 5], marginal_energy_j=[100, 120], joule_cost=[1.5, 0.5])
        choice = priced(1000.0).choose(make_task(), arms)
        assert choice.scores == pytest.approx([1 - 0.15, 1 - 0.06])

    def test_is_not_changed_by_costs_and_parts_that_weigh_the_same(self) -> None:
        known = {"latency_s": [5, 5], "hit_chance": [0.9, 0.8], "marginal_energy_j": [103.7, 421.3]}
        plain = make_arms(**known, transmission_j=[0.3, 0.7])
        with_parts = make_arms(**known, transmission_j=[0.3, 0.7], idle_j=[17.1, 33.3], joule_cost=[1.0, 1.0])
        scores = [priced(1000.0).choose(make_task(), arms).scores.tolist() for arms in (plain, with_parts)]
        assert scores[0] == scores[1]

    def test_lets_energy_lead_where_deadlines_are_met_anyway(self) -> None:
        arms = make_arms(latency_s=[1, 9], hit_chance=[0.999, 0.99], marginal_energy_j=[500, 100])
        assert priced(10_000.0).choose(make_task(), arms).arm == 1

    def test_lets_deadlines_lead_where_they_are_dear(self) -> None:
        arms = make_arms(latency_s=[1, 9], hit_chance=[0.999, 0.9], marginal_energy_j=[500, 100])
        assert priced(10_000.0).choose(make_task(), arms).arm == 0


class TestAdmission:
    def test_waits_for_the_best_arm_while_that_has_no_room(self) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.2], compute=[(5, 4), (1, 4)])
        choice = priced(1000.0).choose(make_task(), arms)
        assert (choice.verdict, choice.arm, choice.awaited, choice.candidates) == (Verdict.WAIT, None, 0, 1)
        assert choice.excluded == {"compute": 1}

    @pytest.mark.parametrize("cost", [{"harm": [0.5, 0.3]}, {"load": [2.0, 2.0], "work": [1.0, 1.0]}])
    def test_lets_wait_what_would_cost_more_than_it_meets_now(self, cost: dict[str, list[float]]) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.4, 0.3], **cost)
        choice = priced(1000.0, rent=1.0).choose(make_task(), arms)
        assert (choice.verdict, choice.arm, choice.awaited, choice.candidates) == (Verdict.WAIT, None, None, 0)

    def test_refuses_the_hopeless_but_says_where_it_would_go(self) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.04, 0.03], harm=[0.5, 0.3])
        choice = priced(1000.0, floor=0.05).choose(make_task(), arms)
        assert (choice.verdict, choice.arm, choice.candidates) == (Verdict.REJECT, 1, 0)
        assert choice.excluded == {"late": 2}
        assert choice.reason == "no node is likely to be in time; highest net value at 1000 J a deadline"
        assert not choice.meets_deadline

    def test_counts_refusals_by_the_first_cause_that_would_have_been_enough(self) -> None:
        arms = make_arms(
            latency_s=[5] * 6,
            hit_chance=[0.9, 0.9, 0.1, 0.9, 0.9, 0.9],
            harm=[0.0, 0.0, 0.9, 0.9, 0.0, 0.0],
            load=[0.0, 0.0, 2.0, 2.0, 2.0, 0.0],
            work=[1.0] * 6,
            compute=[(1, 4), (5, 4), (1, 4), (1, 4), (1, 4), (1, 4)],
            allowed=[False, True, True, True, True, True],
        )
        choice = priced(1000.0, rent=1.0, harm_weight=1.0).choose(make_task(), arms)
        assert choice.excluded == {"tier": 1, "compute": 1, "late": 1, "harm": 1, "price": 1}
        assert choice.candidates == 1

    def test_refuses_the_hopeless_also_where_there_is_no_room(self) -> None:
        arms = make_arms(latency_s=[5], hit_chance=[0.01], compute=[(5, 4)])
        choice = priced(1000.0).choose(make_task(), arms)
        assert (choice.verdict, choice.arm, choice.awaited) == (Verdict.REJECT, None, None)

    @pytest.mark.parametrize(("harm", "harmless"), [(0.05, True), (0.3, False)])
    def test_says_whether_what_is_not_worth_starting_would_harm_anybody(self, harm: float, harmless: bool) -> None:
        choice = priced(1000.0).choose(make_task(), make_arms(latency_s=[5], hit_chance=[0.02], harm=[harm]))
        assert (choice.verdict, choice.arm, choice.is_harmless) == (Verdict.REJECT, 0, harmless)

    def test_may_be_told_not_to_wait(self) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.2], compute=[(5, 4), (1, 4)])
        choice = priced(1000.0, waits=False).choose(make_task(), arms)
        assert (choice.verdict, choice.arm) == (Verdict.START, 1)

    @pytest.mark.parametrize("allowed", [[], [False, False]])
    def test_waits_where_no_node_may_take_the_task_yet(self, allowed: list[bool]) -> None:
        choice = policy().choose(make_task(), make_arms(latency_s=[5.0] * len(allowed), allowed=allowed))
        assert (choice.verdict, choice.arm, choice.awaited) == (Verdict.WAIT, None, None)

    def test_never_waits_for_a_node_that_takes_no_pods(self) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[1.0, 0.5], compute=[(1, 0), (1, 4)])
        assert priced(1000.0).choose(make_task(), arms).arm == 1


class TestPrice:
    ARMS = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.9], marginal_energy_j=[100, 300])

    def test_is_a_multiple_of_the_mean_energy_of_outcomes(self) -> None:
        cs_ucb = policy(price=5.0)
        for energy_j in (100.0, 300.0):
            cs_ucb.learn(make_feedback(0, energy_j=energy_j))
        assert cs_ucb.choose(make_task(), self.ARMS).scores == pytest.approx([0.9 - 100 / 1000, 0.9 - 300 / 1000])

    def test_before_any_outcome_is_one_of_what_is_expected_of_the_task(self) -> None:
        scores = policy(price=5.0).choose(make_task(), self.ARMS).scores
        assert scores == pytest.approx([0.9 - 100 / 1000, 0.9 - 300 / 1000])

    @pytest.mark.parametrize(("loads", "factor"), [([0.0, 1.0], 2.0), ([0.5, 0.0], 4 / 3), ([9.0, 9.0], 4.0)])
    def test_rises_with_the_scarcity_of_capacity_up_to_four_times(self, loads: list[float], factor: float) -> None:
        arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.9], marginal_energy_j=[100, 300], load=loads)
        scores = priced(1000.0).choose(make_task(), arms).scores
        assert scores == pytest.approx([0.9 - 0.1 / factor, 0.9 - 0.3 / factor])

    def test_ignores_nodes_that_may_not_or_cannot_run_the_task(self) -> None:
        arms = make_arms(
            latency_s=[5] * 3, load=[0.0, 9.0, 9.0], allowed=[True, False, True], compute=[(1, 4), (1, 4), (1, 0)]
        )
        choice = priced(1000.0).choose(make_task(), arms)
        assert choice.reason == "highest net value at 1000 J a deadline"

    def test_makes_the_worth_of_an_outcome(self) -> None:
        assert priced(1000.0).learn(make_feedback(0, energy_j=100.0)) == pytest.approx(1 - 100 / 1000)
        assert priced(1000.0).learn(make_feedback(0, energy_j=100.0, latency_s=11.0)) == pytest.approx(-100 / 1000)


class TestState:
    def test_survives_export_and_import(self) -> None:
        old, new = priced(1000.0), policy(price=10.0)
        new.import_state("m", 3, old.export_state("m", 0))
        assert new.choose(make_task(), TestPrice.ARMS).scores == pytest.approx([0.8, 0.6])

    def test_of_fewer_outcomes_is_not_taken_over(self) -> None:
        old, new = priced(70.0), priced(1000.0)
        new.learn(make_feedback(0, energy_j=100.0))
        new.import_state("m", 0, old.export_state("m", 0))
        assert new.choose(make_task(), TestPrice.ARMS).scores == pytest.approx([0.8, 0.6])

    @pytest.mark.parametrize("damage", [{"meanEnergyJoules": math.nan}, {"outcomes": -1}, {"meanEnergyJoules": None}])
    def test_that_makes_no_sense_is_refused(self, damage: dict[str, float]) -> None:
        cs_ucb = policy()
        with pytest.raises(ValueError, match="not a state of cs-ucb"):
            cs_ucb.import_state("m", 0, {**cs_ucb.export_state("m", 0), **damage})


ARM = st.tuples(
    st.floats(0, 1),  # chance
    st.floats(0, 2),  # harm
    st.floats(0, 1e4),  # joules
    st.integers(1, 5),  # slots used
    st.integers(0, 5),  # slots
    st.booleans(),  # tier allowed
)


@settings(deadline=None)
@given(rows=st.lists(ARM, min_size=1, max_size=8))
def test_the_chosen_arm_has_room_and_its_order_does_not_matter(rows: list[tuple[float, ...]]) -> None:
    def choose(order: list[int]) -> tuple[object, ...]:
        chance, harm, joules, used, slots, allowed = zip(*(rows[place] for place in order), strict=True)
        arms = make_arms(
            latency_s=[5.0] * len(order),
            hit_chance=chance,
            harm=harm,
            marginal_energy_j=joules,
            compute=list(zip(used, slots, strict=True)),
            allowed=[bool(one) for one in allowed],
        )
        choice = priced(1000.0).choose(make_task(), arms)
        for arm in (choice.arm, choice.awaited):
            assert arm is None or (allowed[arm] and slots[arm] > 0)
        if choice.arm is not None:
            assert used[choice.arm] <= slots[choice.arm]
        if choice.verdict is Verdict.START:
            assert choice.arm is not None
            assert chance[choice.arm] - harm[choice.arm] > CsUcbParameters().floor
        best = None if choice.arm is None else float(choice.scores[choice.arm])
        return choice.verdict, best, choice.candidates, dict(choice.excluded)

    scores = [chance - harm - joules / 1000.0 for chance, harm, joules, *_ in rows]
    assume(len(set(scores)) == len(scores))
    assert choose(list(range(len(rows)))) == choose(list(reversed(range(len(rows)))))


def test_it_learns_nothing_from_choosing() -> None:
    cs_ucb = priced(1000.0)
    arms = make_arms(latency_s=[5, 5], hit_chance=[0.9, 0.8])
    first = cs_ucb.choose(make_task(), arms).scores
    assert np.array_equal(cs_ucb.choose(make_task(), arms).scores, first)
