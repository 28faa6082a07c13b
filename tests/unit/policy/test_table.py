import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.policy.problem import Arms, Verdict
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from unit.policy.arms import make_arms, make_feedback, make_task


def policy(**parameters: float) -> CsUcbTable:
    return CsUcbTable(CsUcbTableParameters(**parameters))


def read_state(cs_ucb_table: CsUcbTable, row: int) -> tuple[float, float]:
    state = cs_ucb_table.export_state("m", row)
    return state["plays"], state["meanReward"]


def play(cs_ucb_table: CsUcbTable, row: int, *energies_j: float) -> None:
    for energy_j in energies_j:
        cs_ucb_table.learn(make_feedback(row, energy_j=energy_j))


class TestReward:
    def test_is_slack_by_its_weight_less_the_normalised_energy(self) -> None:
        # 300 J for 100 tokens are 3 of 10 J each; 4 of 10 s leave a slack of 0.6, above that of the resources.
        feedback = make_feedback(0, energy_j=300, latency_s=4, resource_slack=0.2)
        assert policy(constraint_weight=0.5).learn(feedback) == pytest.approx(-0.3 + 0.5 * 0.2)

    def test_of_a_late_run_is_reduced_by_its_lateness(self) -> None:
        feedback = make_feedback(0, energy_j=300, latency_s=14)
        assert policy(constraint_weight=0.5).learn(feedback) == pytest.approx(-0.3 + 0.5 * -0.4)

    def test_allows_for_the_prompt(self) -> None:
        feedback = make_feedback(0, energy_j=300, prompt_tokens=2500)
        cs_ucb_table = policy(reference_output_j=10, reference_prompt_j=0.2)
        assert cs_ucb_table.learn(feedback) == pytest.approx(-300 / (100 * 10 + 2500 * 0.2))

    def test_counts_energy_above_the_reference_as_the_reference(self) -> None:
        assert policy().learn(make_feedback(0, energy_j=1e9)) == pytest.approx(-1.0)

    def test_of_a_run_that_was_ended_at_its_deadline_is_the_least_there_is(self) -> None:
        cs_ucb_table = policy(constraint_weight=0.5)
        cs_ucb_table.learn_miss("m", 0, 0)
        assert read_state(cs_ucb_table, 0) == (1, -1.5)


class TestVerdict:
    @pytest.mark.parametrize(
        ("arms", "verdict"),
        [
            (make_arms(latency_s=[5]), Verdict.START),
            (make_arms(latency_s=[11]), Verdict.REJECT),
            (make_arms(latency_s=[11, 5], compute=[(1, 4), (5, 4)]), Verdict.WAIT),
            (make_arms(latency_s=[]), Verdict.WAIT),
        ],
        ids=["feasible", "late everywhere", "full where it would be in time", "no nodes"],
    )
    def test_is_to_wait_while_only_room_is_lacking(self, arms: Arms, verdict: Verdict) -> None:
        assert policy().choose(make_task(), arms).verdict is verdict


class TestIndex:
    def test_is_mean_and_bonus_over_all_plays(self) -> None:
        cs_ucb_table = policy(exploration=0.2)
        play(cs_ucb_table, 0, 100, 300)  # rewards -0.1 and -0.3
        play(cs_ucb_table, 1, 500)
        choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[5, 5]))
        assert choice.scores == pytest.approx(
            [-0.2 + 0.2 * math.sqrt(math.log(3) / 2), -0.5 + 0.2 * math.sqrt(math.log(3) / 1)]
        )
        assert (choice.arm, choice.explored, choice.candidates) == (0, False, 2)

    def test_counts_tasks_in_flight_as_plays(self) -> None:
        cs_ucb_table = policy(exploration=0.2)
        play(cs_ucb_table, 0, 100)
        play(cs_ucb_table, 1, 100)
        choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[5, 5], in_flight=[3, 0]))
        assert choice.scores == pytest.approx(
            [-0.1 + 0.2 * math.sqrt(math.log(5) / 4), -0.1 + 0.2 * math.sqrt(math.log(5) / 1)]
        )

    def test_is_kept_for_each_service_class_alone(self) -> None:
        cs_ucb_table = policy()
        cs_ucb_table.learn(make_feedback(0, prompt_tokens=5000))
        short, long = (replace(make_task(), prompt_tokens=tokens) for tokens in (100, 4000))
        arms = make_arms(latency_s=[5])
        assert np.isposinf(cs_ucb_table.choose(short, arms).scores[0])
        assert np.isfinite(cs_ucb_table.choose(long, arms).scores[0])

    def test_is_kept_for_each_model_alone(self) -> None:
        cs_ucb_table = policy()
        play(cs_ucb_table, 0, 100)
        assert np.isposinf(cs_ucb_table.choose(make_task("another"), make_arms(latency_s=[5])).scores[0])


class TestExploration:
    def test_tries_every_arm_once_in_the_order_of_predicted_energy(self) -> None:
        cs_ucb_table, order = policy(), []
        for _ in range(3):
            choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[5, 5, 5], energy_j=[3, 1, 2]))
            assert choice.arm is not None
            assert choice.explored
            assert "first try" in choice.reason
            order.append(choice.arm)
            play(cs_ucb_table, choice.arm, 100)
        assert order == [1, 2, 0]

    def test_of_the_only_arm_is_exploration_too(self) -> None:
        assert policy().choose(make_task(), make_arms(latency_s=[5])).explored

    def test_spreads_a_burst_without_any_feedback(self) -> None:
        cs_ucb_table, in_flight = policy(), [0.0] * 4
        for _ in range(40):
            choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[5] * 4, in_flight=in_flight))
            assert choice.arm is not None
            in_flight[choice.arm] += 1
        assert in_flight == [10, 10, 10, 10]

    def test_prefers_an_arm_that_is_worse_so_far_but_less_known(self) -> None:
        cs_ucb_table = policy(exploration=0.5)
        play(cs_ucb_table, 0, *[100] * 50)
        play(cs_ucb_table, 1, 200)
        choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[5, 5]))
        assert (choice.arm, choice.explored) == (1, True)


class TestInfeasible:
    def test_takes_the_least_violation(self) -> None:
        cs_ucb_table = policy(exploration=0.0, penalty_weight=1.0)
        play(cs_ucb_table, 0, 100)
        play(cs_ucb_table, 1, 300)
        choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[18, 12]))
        assert choice.scores == pytest.approx([-0.1 - 0.8, -0.3 - 0.2])
        assert (choice.arm, choice.meets_deadline, choice.candidates, choice.explored) == (1, False, 0, False)
        assert choice.excluded == {"late": 2}
        assert choice.slack == pytest.approx(-0.2)
        assert {term.name: float(term.values[1]) for term in choice.terms} == pytest.approx(
            {"mean reward": -0.3, "uncertainty": 0.0, "lateness": -0.2}
        )

    def test_tries_of_several_untried_arms_the_least_late_one(self) -> None:
        assert policy().choose(make_task(), make_arms(latency_s=[18, 12], energy_j=[1, 9])).arm == 1

    def test_never_prefers_a_late_arm_to_a_feasible_one(self) -> None:
        cs_ucb_table = policy(penalty_weight=0.0)
        play(cs_ucb_table, 0, 0)
        play(cs_ucb_table, 1, 900)
        choice = cs_ucb_table.choose(make_task(), make_arms(latency_s=[11, 9]))
        assert (choice.arm, choice.excluded) == (1, {"late": 1})

    @pytest.mark.parametrize("arms", [make_arms(latency_s=[]), make_arms(latency_s=[5], compute=[(5, 4)])])
    def test_chooses_nothing_where_nothing_has_room(self, arms: Arms) -> None:
        choice = policy().choose(make_task(), arms)
        assert (choice.arm, choice.candidates, choice.meets_deadline) == (None, 0, False)
        assert np.isneginf(choice.scores).all()


class TestState:
    def test_is_the_number_and_mean_of_the_rewards(self) -> None:
        cs_ucb_table = policy()
        play(cs_ucb_table, 2, 100, 200, 600)
        assert read_state(cs_ucb_table, 2) == (3, pytest.approx(-0.3))

    def test_of_a_version_without_classes_is_that_of_every_class(self) -> None:
        cs_ucb_table = policy()
        cs_ucb_table.import_state("m", 0, {"plays": 3, "meanReward": -0.3})
        tasks = [replace(make_task(), prompt_tokens=tokens) for tokens in (100, 4000)]
        scores = [cs_ucb_table.choose(task, make_arms(latency_s=[5])).terms[0].values for task in tasks]
        assert scores == [-0.3, -0.3]

    def test_survives_export_and_import(self) -> None:
        old, new = policy(), policy()
        play(old, 0, 100, 300)
        play(old, 1, 50)
        for row in (1, 0):
            new.import_state("m", row, old.export_state("m", row))
        arms = make_arms(latency_s=[5, 5])
        assert new.choose(make_task(), arms).scores.tolist() == old.choose(make_task(), arms).scores.tolist()

    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"plays": 3},
            {"meanReward": 0.1},
            {"plays": -1, "meanReward": 0.1},
            {"plays": 1e12, "meanReward": 0.1},
            {"plays": 3, "meanReward": math.nan},
            {"plays": math.inf, "meanReward": 0.1},
        ],
    )
    def test_that_makes_no_sense_is_refused_and_changes_nothing(self, state: dict[str, float]) -> None:
        cs_ucb_table = policy()
        play(cs_ucb_table, 0, 100)
        with pytest.raises(ValueError, match="not a state of cs-ucb-table"):
            cs_ucb_table.import_state("m", 0, state)
        assert read_state(cs_ucb_table, 0) == (1, pytest.approx(-0.1))


ARM = st.tuples(
    st.integers(0, 100),  # latency
    st.floats(0, 1e4),  # energy
    st.integers(1, 5),  # slots used
    st.integers(0, 5),  # slots
    st.integers(0, 100),  # uplink used
    st.integers(0, 100),  # uplink
    st.booleans(),  # tier allowed
    st.integers(0, 3),  # in flight
    st.integers(0, 5),  # finished plays
)


@settings(deadline=None)
@given(rows=st.lists(ARM, min_size=1, max_size=8), left_s=st.integers(-5, 60))
def test_the_chosen_arm_keeps_its_tier_and_every_hard_constraint(rows: list[tuple[float, ...]], left_s: int) -> None:
    latency_s, energy_j, used, slots, sent, uplink, allowed, in_flight, plays = zip(*rows, strict=True)
    arms = make_arms(
        latency_s=latency_s,
        energy_j=energy_j,
        compute=list(zip(used, slots, strict=True)),
        bandwidth=list(zip(sent, uplink, strict=True)),
        allowed=[bool(one) for one in allowed],
        in_flight=in_flight,
    )
    cs_ucb_table = policy()
    for row, count in enumerate(plays):
        play(cs_ucb_table, row, *[energy_j[row]] * int(count))
    choice = cs_ucb_table.choose(make_task(time_left_s=left_s), arms)
    has_room = [
        ok and slots[n] > 0 and used[n] <= slots[n] and uplink[n] > 0 and sent[n] <= uplink[n]
        for n, ok in enumerate(allowed)
    ]
    in_time = [room and left_s > 0 and latency_s[n] <= left_s for n, room in enumerate(has_room)]
    assert (choice.arm is None) == (not any(has_room))
    assert choice.candidates == sum(in_time)
    assert choice.candidates + sum(choice.excluded.values()) == len(rows)
    if choice.arm is not None:
        assert has_room[choice.arm]
        assert choice.meets_deadline == in_time[choice.arm] == any(in_time)


def test_a_clearly_best_arm_gets_most_plays_in_the_long_run() -> None:
    rng = np.random.default_rng(7)
    cs_ucb_table, plays = policy(), np.zeros(6)
    mean_j = np.array([600, 500, 100, 500, 700, 600])
    arms = make_arms(latency_s=[5] * 6)
    for _ in range(1000):
        arm = cs_ucb_table.choose(make_task(), arms).arm
        assert arm is not None
        plays[arm] += 1
        cs_ucb_table.learn(make_feedback(arm, energy_j=float(rng.normal(mean_j[arm], 50))))
    assert plays[2] > 900
    assert plays.min() >= 1
