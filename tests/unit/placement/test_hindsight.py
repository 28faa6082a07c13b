"""The usual decision foresaw 2 s and 100 J, and 0.02 s and 4 J a token; it was made at 1002 s with two tasks there."""

import dataclasses
import math

import pytest

from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun, expected_residence, judge_ended, judge_run
from unit.placement.records import make_decision

RUN = CompletedRun(
    prompt_tokens=900,
    output_tokens=200,
    bound_s=1002.0,
    finished_s=1014.0,
    transfer_s=1.5,
    latency_s=14.0,
    deadline_s=60.0,
    inference_energy_j=1790.0,
    residence=Residence(2.5, 800.0),
)


def run(**fields: object) -> CompletedRun:
    return dataclasses.replace(RUN, **fields)  # type: ignore[arg-type]


def test_errors_are_those_of_the_forecast_for_the_tokens_that_came() -> None:
    outcome = judge_run(make_decision(), RUN)
    assert outcome.run_error is not None
    assert outcome.run_error == pytest.approx(math.log(12 / (2 + 200 * 0.02)))
    assert outcome.energy_error is not None
    assert outcome.energy_error == pytest.approx(math.log((1790 + 10) / (100 + 200 * 4)))
    assert (outcome.run.run_s, outcome.run.occupancy, outcome.run.others_tokens) == (10.5, 2.5, 800.0)
    assert (outcome.run.hint_tokens, outcome.run.cold) == (None, 0.0)


def test_time_at_the_node_before_it_was_bound_is_no_part_of_the_run() -> None:
    outcome = judge_run(make_decision(), run(bound_s=1005.0))
    assert outcome.run.run_s == 7.5
    assert outcome.run_error is not None
    assert outcome.run_error == pytest.approx(math.log(12 / 6))


def test_without_tokens_no_error_can_be_told_and_the_length_is_not_learned() -> None:
    outcome = judge_run(make_decision(), run(output_tokens=None))
    assert (outcome.run_error, outcome.energy_error, outcome.is_length_known) == (None, None, False)
    assert outcome.output_tokens == 100.0


def test_the_length_of_one_answer_is_not_learned_from_several_but_time_and_energy_are() -> None:
    several, one = judge_run(make_decision(prompts=3), RUN), judge_run(make_decision(), RUN)
    assert (several.is_length_known, one.is_length_known) == (False, True)
    assert dataclasses.replace(several, is_length_known=True) == one
    assert not judge_ended(make_decision(prompts=3), 1010.0, None).is_one_answer


def test_the_length_of_one_answer_is_not_learned_from_a_pod_that_reports_several() -> None:
    several = judge_run(make_decision(), run(prompts=3))
    assert several == dataclasses.replace(judge_run(make_decision(), RUN), is_length_known=False)
    assert not judge_ended(make_decision(), 1010.0, None, 3).is_one_answer


def test_without_a_measured_energy_its_error_is_unknown() -> None:
    outcome = judge_run(make_decision(), run(inference_energy_j=None))
    assert outcome.energy_error is None
    assert outcome.run_error is not None


def test_where_nobody_watched_the_stay_is_the_expected_one() -> None:
    # 0.012 s a token with one other task, 0.02 s expected: 0.008 s go to the prompts of others, at 0.4 ms a token.
    outcome = judge_run(make_decision(), run(residence=None))
    assert (outcome.run.occupancy, outcome.run.others_tokens) == pytest.approx((2.0, 200 * 0.008 / 0.0004))


def test_the_expected_stay_counts_per_gpu() -> None:
    assert expected_residence(make_decision(occupancy=6.0, gpus=4.0), 100).occupancy == 1.5


def test_next_to_other_models_a_run_is_expected_to_meet_as_much_in_a_longer_time() -> None:
    paced = make_decision(token_s=0.04, reading_s=0.8, pace=0.5)
    alone = expected_residence(make_decision(), 200)
    assert dataclasses.astuple(expected_residence(paced, 200)) == pytest.approx(
        (alone.occupancy, alone.others_tokens, 0.5)
    )


def test_the_law_of_a_decision_gives_a_run_as_much_longer_as_its_pace_was_less() -> None:
    met = RUN.residence
    assert met is not None
    half = judge_run(make_decision(token_s=0.04, reading_s=0.8, pace=0.5), run(residence=met))
    third = judge_run(make_decision(), run(residence=dataclasses.replace(met, pace=1 / 3)))
    assert (half.law_s, third.law_s / 3) == pytest.approx((judge_run(make_decision(), RUN).law_s,) * 2)
    assert (half.run.pace, third.run.pace) == (1.0, 1 / 3)


def test_a_run_that_was_ended_lasted_from_the_decision_without_the_transfer() -> None:
    ended = judge_ended(make_decision(), 1010.0, Residence(3.0, 400.0))
    assert (ended.run.run_s, ended.run.occupancy, ended.run.others_tokens) == (7.5, 3.0, 400.0)
    assert (ended.run.task_id, ended.run.model, ended.run.node, ended.ended_s) == ("uid-t", "m", "n", 1010.0)
