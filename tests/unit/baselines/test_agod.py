import numpy as np
import pytest
from numpy.random import Generator, default_rng

from perllm.policy.problem import Arms
from perllm_lab.baselines.agod import Agod, AgodParameters
from unit.baselines.samples import make_arms, make_feedback, make_task

QUICK = AgodParameters(hidden=16, update_every=1, batch=32)


def draw_arms(rng: Generator) -> Arms:
    """Four nodes of which the one of the least load, and only that one, will be in time; its latency tells nothing."""
    return make_arms(used=(rng.permutation(4) * 2 + 1).tolist(), slots=[8] * 4, latency_s=[5.0] * 4)


def play(policy: Agod, rng: Generator, rounds: int) -> float:
    """Plays the toy and returns the share of tasks in time."""
    in_time = 0
    for number in range(rounds):
        arms, task = draw_arms(rng), make_task(prompt_tokens=100 + number % 50)
        arm = policy.choose(task, arms).arm
        assert arm is not None
        is_best = arm == int(arms.compute_used.argmin())
        policy.learn(make_feedback(arm, 5.0 if is_best else 15.0, task=task))
        in_time += is_best
    return in_time / rounds


def test_learns_a_toy_problem_to_nine_of_ten() -> None:
    policy = Agod(default_rng(0), QUICK)
    before = play(policy, default_rng(1), 100)
    play(policy, default_rng(2), 600)
    after = play(policy, default_rng(3), 200)
    assert before < 0.6
    assert after > 0.9


def test_takes_its_knowledge_along_in_its_weights() -> None:
    first = Agod(default_rng(0), QUICK)
    play(first, default_rng(2), 600)
    second = Agod(default_rng(5), QUICK)
    second.import_weights(first.export_weights())
    assert play(second, default_rng(4), 100) > 0.85


def test_refuses_weights_of_another_shape_and_keeps_its_own() -> None:
    policy = Agod(default_rng(0), QUICK)
    before = policy.export_weights()
    with pytest.raises(ValueError, match=r"actor\.0"):
        policy.import_weights(Agod(default_rng(0), AgodParameters(hidden=8)).export_weights())
    after = policy.export_weights()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_scores_nodes_whatever_their_order_and_number() -> None:
    policy = Agod(default_rng(0))
    arms = make_arms(used=[1, 2, 3], slots=[4, 8, 16], latency_s=[1, 2, 3], cloud=[False, True, False])
    turned = make_arms(used=[3, 2, 1], slots=[16, 8, 4], latency_s=[3, 2, 1], cloud=[False, True, False])
    scores = [policy.choose(make_task(), each).scores for each in (arms, turned)]
    assert scores[0] == pytest.approx(scores[1][::-1], rel=1e-5)


def test_remembers_a_large_fleet_by_a_sample() -> None:
    policy = Agod(default_rng(0), AgodParameters(hidden=8, arms=6, batch=4, update_every=1))
    for number in range(20):
        task = make_task(prompt_tokens=100 + number)
        arm = policy.choose(task, make_arms(used=[1] * 50)).arm
        assert arm is not None
        assert policy.learn(make_feedback(arm, 5.0, task=task)) == 1.0


def test_a_late_task_costs_twice_what_one_in_time_earns() -> None:
    policy = Agod(default_rng(0))
    assert [policy.learn(make_feedback(0, latency_s)) for latency_s in (10.0, 10.1)] == [1.0, -2.0]


def test_learns_from_tasks_ended_at_their_deadline() -> None:
    policy = Agod(default_rng(0), QUICK)
    rng = default_rng(2)
    for number in range(600):
        arms = draw_arms(rng)
        task = make_task(prompt_tokens=100 + number % 50)
        arm = policy.choose(task, arms).arm
        assert arm is not None
        if arm == int(arms.compute_used.argmin()):
            policy.learn(make_feedback(arm, 5.0, task=task))
        else:
            policy.learn_miss("m", arm, 100)
    assert play(policy, default_rng(3), 100) > 0.85
