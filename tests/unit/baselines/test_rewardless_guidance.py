import numpy as np
import pytest
from numpy.random import default_rng

from perllm_lab.baselines.rewardless_guidance import RewardlessGuidance, RewardlessParameters
from unit.baselines.samples import make_arms, make_feedback, make_task

CERTAIN = RewardlessParameters(prior_spread=0.0)


def test_before_any_outcome_expects_what_the_operator_predicts() -> None:
    arms = make_arms(used=[1, 1], latency_s=[4, 2])
    choice = RewardlessGuidance(default_rng(0), CERTAIN).choose(make_task(), arms)
    assert choice.arm == 1
    assert choice.scores == pytest.approx([1 / 4 + 1, 1 / 2 + 1])


def test_a_server_expected_late_is_worth_nothing() -> None:
    arms = make_arms(used=[1, 1], latency_s=[11, 9], energy_j=[1, 100])
    assert RewardlessGuidance(default_rng(0), CERTAIN).choose(make_task(), arms).scores == pytest.approx([0, 1 / 9 + 1])


def test_takes_the_fastest_when_none_is_expected_in_time() -> None:
    arms = make_arms(used=[1, 1], latency_s=[30, 20])
    assert RewardlessGuidance(default_rng(0), CERTAIN).choose(make_task(), arms).arm == 1


def test_prefers_the_better_model() -> None:
    parameters = RewardlessParameters(prior_spread=0.0, cloud_quality=1.5)
    arms = make_arms(used=[1, 1], latency_s=[4, 5], cloud=[False, True])
    assert RewardlessGuidance(default_rng(0), parameters).choose(make_task(), arms).arm == 1


def test_waits_while_no_server_has_compute_and_bandwidth_left() -> None:
    assert RewardlessGuidance(default_rng(0)).choose(make_task(), make_arms(used=[5, 9])).arm is None


def test_learns_from_outcomes_how_fast_a_class_of_servers_is() -> None:
    policy = RewardlessGuidance(default_rng(0))
    arms = make_arms(used=[1, 1], slots=[4, 8], latency_s=[2, 3])
    for number in range(60):
        task = make_task(prompt_tokens=100 + number)
        choice = policy.choose(task, arms)
        assert choice.arm is not None
        policy.learn(make_feedback(choice.arm, (8.0, 3.0)[choice.arm], task=task))
    assert policy.choose(make_task(), arms).arm == 1


def test_counts_latency_from_the_decision_on() -> None:
    # The task waited 4 of its 10 s: 6 s after its creation is 2 s after the decision, as predicted.
    policy = RewardlessGuidance(default_rng(0), CERTAIN)
    arms = make_arms(used=[1], latency_s=[2])
    task = make_task(time_left_s=6)
    policy.choose(task, arms)
    reward = policy.learn(make_feedback(0, 6.0, task=task))
    assert reward == pytest.approx(1 / 6 + 1)
    assert policy.choose(make_task(), arms).scores == pytest.approx([1 / 2 + 1])


def test_is_curious_about_what_its_members_disagree_on() -> None:
    policy = RewardlessGuidance(default_rng(3), RewardlessParameters(prior_spread=0.3, curiosity=1e3))
    arms = make_arms(used=[1, 1], slots=[4, 8], latency_s=[3, 3])
    task = make_task()
    first = policy.choose(task, arms)
    assert first.arm is not None
    for number in range(30):
        task = make_task(prompt_tokens=100 + number)
        arm = policy.choose(task, arms).arm
        assert arm is not None
        policy.learn(make_feedback(arm, 3.0, task=task))
    spread = policy.choose(make_task(), arms).scores.max() - 4 / 3
    assert spread < (first.scores.max() - 4 / 3) / 2


def test_an_unknown_outcome_changes_nothing() -> None:
    policy = RewardlessGuidance(default_rng(0), CERTAIN)
    arms = make_arms(used=[1, 1], latency_s=[4, 2])
    assert policy.learn(make_feedback(0, 1.0)) == 0.0
    assert np.array_equal(policy.choose(make_task(), arms).scores, [1.25, 1.5])
