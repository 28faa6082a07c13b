import numpy as np
import pytest
from numpy.random import default_rng

from perllm.scheduling.loop import MAX_EXAMINED
from perllm_lab.baselines.registry import build_policy
from perllm_lab.simulator.fleet import FleetPlan
from perllm_lab.simulator.placing import DEADLINE_MODE, PLAIN_MODE, DeploymentMode
from perllm_lab.simulator.result import Fate
from perllm_lab.simulator.simulation import simulate
from unit.simulator.placings import FAST, SLOW, Desk, node, request


def test_a_task_goes_to_the_node_where_it_is_in_time() -> None:
    desk = Desk(node("slow", SLOW), node("fast", FAST))
    assert desk.ask(request(deadline_s=6.0)) == [(0, "fast")]


def test_a_task_that_is_in_time_anywhere_goes_where_it_takes_less_energy() -> None:
    desk = Desk(node("fast", FAST), node("slow", SLOW))
    assert desk.ask(request(deadline_s=5000.0)) == [(0, "slow")]


def test_a_task_waits_for_a_full_node_that_is_better_and_starts_there_when_it_has_room() -> None:
    desk = Desk(node("fast", FAST, slots=1), node("slow", SLOW))
    assert desk.ask(request(deadline_s=20.0), request(deadline_s=20.0)) == [(0, "fast")]
    assert desk.decide(0.1) == []
    desk.complete(0, "fast", 2.0)
    assert desk.decide(2.0) == [(1, "fast")]


def test_a_task_does_not_wait_where_that_takes_longer_than_the_slower_node() -> None:
    desk = Desk(node("fast", FAST, slots=1), node("slow", SLOW))
    started = desk.ask(*[request(deadline_s=60.0) for _ in range(20)])
    assert started[0] == (0, "fast")
    assert started[-1][1] == "slow"


def test_a_task_that_can_be_in_time_nowhere_is_rejected() -> None:
    assert Desk(node("fast")).ask(request(deadline_s=0.5)) == [(0, None)]


def test_a_task_waits_where_it_would_endanger_more_than_it_meets() -> None:
    # A prompt of 20,000 tokens holds the Orin up for 17 s, more than the five tasks there have to spare.
    long = request(deadline_s=90.0, at_s=10.0, prompt_tokens=20_000)
    assert Desk(node("slow", SLOW)).ask(long, now_s=10.0) == [(0, "slow")]
    busy = Desk(node("slow", SLOW))
    assert busy.ask(*[request(deadline_s=26.0) for _ in range(5)]) == [(number, "slow") for number in range(5)]
    assert busy.ask(long, now_s=10.0) == []


@pytest.mark.parametrize(("mode", "second"), [(PLAIN_MODE, 1), (DEADLINE_MODE, 2)])
def test_waiting_tasks_are_served_in_the_order_of_the_deployment_mode(mode: DeploymentMode, second: int) -> None:
    desk = Desk(node("only", slots=1), policy=build_policy("fastest-first", default_rng(0)), mode=mode)
    assert desk.ask(request(deadline_s=30.0)) == [(0, "only")]
    assert desk.ask(request(deadline_s=90.0), request(deadline_s=60.0)) == []
    desk.complete(0, "only", 3.0)
    assert desk.decide(3.0) == [(second, "only")]


@pytest.mark.parametrize("mode", [PLAIN_MODE, DEADLINE_MODE])
def test_a_baseline_by_its_own_forecasts_has_no_task_rejected(mode: DeploymentMode) -> None:
    desk = Desk(node("only"), policy=build_policy("round-robin", default_rng(0)), mode=mode)
    assert desk.ask(request(deadline_s=0.5)) == [(0, "only")]


def test_a_task_of_a_lost_node_is_decided_again_and_not_learned() -> None:
    desk = Desk(node("fast", FAST), node("slow", SLOW))
    before = desk.expect_tokens()
    assert desk.ask(request(deadline_s=60.0)) == [(0, "fast")]
    desk.placing.release(0, 5.0)
    desk.placing.leave("fast", 5.0)
    desk.placing.submit(0, desk.asked[0], 5.0)
    assert desk.decide(5.0) == [(0, "slow")]
    assert desk.expect_tokens() == before
    assert desk.learner.summaries("fast") == {}


def test_a_task_complete_on_a_node_that_was_lost_since_is_learned() -> None:
    desk = Desk(node("fast", FAST), node("slow", SLOW))
    desk.ask(request(deadline_s=6.0))
    desk.placing.leave("fast", 3.0)
    desk.complete(0, "fast", 3.0)
    assert desk.learner.summaries("fast")["chat"].count == 1


def test_a_complete_task_is_learned() -> None:
    desk = Desk(node("fast"))
    before = desk.expect_tokens()
    desk.ask(request(deadline_s=60.0))
    desk.complete(0, "fast", 8.0, output_tokens=900)
    assert desk.learner.summaries("fast")["chat"].count == 1
    assert desk.expect_tokens() > before


def test_a_task_ended_at_its_deadline_makes_answers_longer() -> None:
    # After 90 s the Orin has written some 900 tokens of it, where 200 were expected.
    desk = Desk(node("slow", SLOW))
    for number in range(5):
        desk.ask(request(deadline_s=60.0))
        desk.complete(number, "slow", 22.0)
    before = desk.expect_tokens()
    desk.ask(request(deadline_s=90.0))
    desk.placing.bind(5, 0.0)
    desk.placing.release(5, 90.0)
    assert desk.expect_tokens() > before


def test_a_task_ended_where_deadlines_do_not_end_tasks_is_none_to_learn_from() -> None:
    desk = Desk(node("slow", SLOW), mode=PLAIN_MODE)
    before = desk.expect_tokens()
    desk.ask(request(deadline_s=40.0))
    desk.placing.release(0, 40.0)
    assert desk.expect_tokens() == before


def test_no_decision_is_due_while_nothing_waits() -> None:
    desk = Desk(node("fast", slots=1))
    desk.ask(request(deadline_s=20.0))
    assert desk.placing.next_decision_s() == np.inf
    desk.ask(request(deadline_s=20.0))
    assert 0.0 < desk.placing.next_decision_s() < 1.0


def test_tasks_that_only_wait_are_all_examined_however_many_they_are() -> None:
    desk = Desk(node("fast", slots=1))
    desk.ask(request(deadline_s=900.0))
    assert desk.ask(*[request(deadline_s=900.0)] * (MAX_EXAMINED + 1)) == []
    assert desk.placing.next_decision_s() > 0.0


def test_a_task_that_waits_is_rejected_once_it_has_become_hopeless() -> None:
    nodes = (node("only", slots=1),)
    asked = [request(30.0, output_tokens=4000), request(6.0, at_s=0.1), request(60.0, at_s=50.0)]
    desk = Desk()
    tasks = simulate(FleetPlan("test", nodes), asked, desk.placing).tasks
    assert [Fate(fate) for fate in tasks.fate] in (
        [Fate.IN_TIME, Fate.REFUSED, Fate.IN_TIME],
        [Fate.ENDED, Fate.REFUSED, Fate.IN_TIME],
    )
