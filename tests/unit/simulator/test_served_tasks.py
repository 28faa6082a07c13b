from dataclasses import replace

import pytest

from perllm.api.task_status import RunsAs
from perllm.policy.contextual import CsUcb
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.placing import OPERATOR_MODE, Placing
from perllm_lab.simulator.result import TaskTable
from perllm_lab.simulator.simulation import simulate
from unit.simulator.placings import FAST, SLOW, Desk, node, request

POD_START_S = 1.3


def run(runs_as: RunsAs, spec: NodeSpec) -> TaskTable:
    """One task by the clairvoyant, whose forecasts are right if it assumes what happens."""
    settings, policy = SimulationSettings(runs_as=runs_as), CsUcb()
    placing = Placing("clairvoyant", policy, OPERATOR_MODE, settings, learner=TrueLearner(policy, doubt=0.25))
    return simulate(FleetPlan("test", (spec,)), [request(500.0)], placing, settings).tasks


def test_a_request_is_complete_earlier_than_a_pod_by_its_start_and_that_is_foreseen() -> None:
    spec = node("only", FAST)
    spec = replace(spec, gpu=replace(spec.gpu, pod_start_s=POD_START_S))
    pod, served = run(RunsAs.POD, spec), run(RunsAs.REQUEST, spec)
    assert pod.finished_s[0] - served.finished_s[0] == pytest.approx(POD_START_S)
    for tasks in (pod, served):
        assert tasks.forecast["latency_s"][0] == pytest.approx(tasks.finished_s[0], rel=0.01)


def test_a_server_takes_as_many_requests_as_its_node_has_slots() -> None:
    desk = Desk(node("only", slots=2), runs_as=RunsAs.REQUEST)
    assert desk.ask(*[request(deadline_s=60.0) for _ in range(3)]) == [(0, "only"), (1, "only")]
    desk.complete(0, "only", 2.0)
    assert desk.decide(2.0) == [(2, "only")]


def test_requests_go_to_the_nodes_that_are_there() -> None:
    desk = Desk(node("fast", FAST), node("slow", SLOW), runs_as=RunsAs.REQUEST)
    assert desk.ask(request(deadline_s=60.0, prompt_tokens=10_000)) == [(0, "fast")]
    desk.complete(0, "fast", 2.0)
    desk.placing.leave("fast", 3.0)
    assert desk.ask(request(deadline_s=60.0, at_s=3.0), now_s=3.0) == [(1, "slow")]
    desk.placing.leave("slow", 4.0)
    assert desk.ask(request(deadline_s=60.0, at_s=4.0), now_s=4.0) == []
    desk.placing.join(node("fast", FAST), 5.0)
    assert desk.decide(5.0) == [(2, "fast")]


def test_requests_are_learned() -> None:
    desk = Desk(node("fast"), runs_as=RunsAs.REQUEST)
    before = desk.expect_tokens()
    desk.ask(request(deadline_s=60.0))
    desk.complete(0, "fast", 8.0, output_tokens=900)
    assert desk.learner.summaries("fast")["chat"].count == 1
    assert desk.expect_tokens() > before
