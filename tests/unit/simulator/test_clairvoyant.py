from dataclasses import replace

import numpy as np
import pytest

from perllm.policy.contextual import CsUcb
from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.node import unloaded_latency_s
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.experiment import BuildContext, Experiment, RunSpec, run_job
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.placing import OPERATOR_MODE, Placing
from perllm_lab.simulator.result import Fate, TaskTable
from perllm_lab.simulator.scheduler import RejectTask, SendTask, Strategy
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario
from unit.learning.outcomes import make_ended, make_outcome
from unit.simulator.placings import FAST, LINK, SLOW, node, request
from unit.simulator.schedulers import RoundRobin


def run(requests: list[Request], *nodes: NodeSpec) -> TaskTable:
    policy = CsUcb()
    placing = Placing(
        "clairvoyant", policy, OPERATOR_MODE, SimulationSettings(), learner=TrueLearner(policy, doubt=0.25)
    )
    return simulate(FleetPlan("test", nodes), requests, placing).tasks


@pytest.mark.parametrize("gpu", [FAST, SLOW])
def test_it_foresees_the_seconds_and_joules_of_a_lone_task(gpu: str) -> None:
    tasks = run([request(500.0, output_tokens=321)], node("only", gpu))
    kind = CATALOGUE[gpu]
    true_s = unloaded_latency_s(kind, LINK, prompt_tokens=1000, output_tokens=321, input_bytes=4000)
    true_j = 1000 * kind.prefill_power_w * kind.prefill_per_token_s + 321 * (
        kind.token_energy_j + kind.iteration_energy_j
    )
    assert tasks.finished_s[0] == pytest.approx(true_s, rel=1e-3)
    assert tasks.forecast["latency_s"][0] == pytest.approx(true_s, rel=0.01)
    assert tasks.energy_j[0] == pytest.approx(true_j)
    assert tasks.forecast["energy_j"][0] == pytest.approx(true_j, rel=0.01)


def test_it_foresees_that_a_model_has_to_be_loaded() -> None:
    tasks = run([request(500.0)], replace(node("cold", FAST), resident=False))
    assert tasks.forecast["latency_s"][0] == pytest.approx(tasks.finished_s[0], rel=0.01)


def test_it_knows_which_of_two_tasks_is_short_enough() -> None:
    # The Orin writes some ten tokens a second.
    long, short = request(30.0, output_tokens=400), request(30.0, at_s=40.0, output_tokens=100)
    tasks = run([long, short], node("only", SLOW))
    assert [Fate(fate) for fate in tasks.fate] == [Fate.REFUSED, Fate.IN_TIME]


def test_a_hint_that_is_wrong_does_not_mislead_it() -> None:
    tasks = run([replace(request(30.0, output_tokens=100), hint_tokens=4000)], node("only", SLOW))
    assert Fate(tasks.fate[0]) is Fate.IN_TIME


def test_it_does_not_know_what_will_arrive() -> None:
    asked = [request(60.0, output_tokens=300), request(60.0, at_s=5.0, output_tokens=300)]
    nodes = node("fast", FAST, slots=1), node("slow", SLOW)
    alone, followed = run(asked[:1], *nodes), run(asked, *nodes)
    assert alone.node[0] == followed.node[0]
    assert np.array_equal(alone.forecast["hit_chance"], followed.forecast["hit_chance"][:1])


class FirstOnes(RoundRobin):
    """Sends the first tasks to the first node, and rejects the others."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        self.name = name
        self.count = count

    def place(self, number: int) -> SendTask | RejectTask:
        return SendTask(number, self.nodes[0]) if number < self.count else RejectTask(number)


@pytest.mark.parametrize(("fates", "best"), [({"bold": 3, "wary": 4}, "wary"), ({"bold": 4, "wary": 3}, "bold")])
def test_the_better_of_two_attitudes_counts(fates: dict[str, int], best: str) -> None:
    built = []

    def build(name: str, context: BuildContext) -> Strategy:
        built.append(name)
        return FirstOnes(name, fates[name])

    paper = load_scenario("paper")
    scenario = paper.model_copy(update={"workload": paper.workload.model_copy(update={"deadline_s": (99.0, 99.0)})})
    asked = Experiment(scenario, "synthetic:short", 10, (), (0.1,), (0,), build, hindsight={"c": tuple(fates)})
    found = run_job(asked, RunSpec("c", 0.1, 0))
    assert (found.policy, built) == ("c", list(fates))
    assert np.count_nonzero(found.tasks.fate == Fate.IN_TIME) == fates[best]


def test_it_counts_a_run_that_was_ended_as_longer_than_foreseen() -> None:
    learner = TrueLearner(CsUcb(), doubt=0.25)
    learner.seed_node(node("only", FAST))
    row = np.array([learner.register("only", CATALOGUE[FAST].product)])
    before = learner.laws("chat", row).latency.scale[0]
    ended = make_ended(
        model="chat", node="only", hint_tokens=200.0, run_s=30.0, foreseen_fixed_s=1.0, foreseen_token_s=0.01
    )
    for _ in range(20):
        learner.learn_ended(ended)
    assert learner.laws("chat", row).latency.scale[0] > 2 * before


def test_it_does_not_doubt_the_laws_that_it_knows() -> None:
    learner = TrueLearner(CsUcb(), doubt=0.25)
    learner.seed_node(node("only", FAST))
    laws = learner.laws("chat", np.array([learner.register("only", CATALOGUE[FAST].product)]))
    assert laws.latency.doubt(np.ones((1, 5))).tolist() == [0.0]


def test_it_knows_that_a_throttled_gpu_draws_its_power_for_longer() -> None:
    learner, row = TrueLearner(CsUcb(), doubt=0.25), np.array([0])
    learner.seed_node(node("only", FAST))
    before = learner.laws("chat", row).energy.coefficients[0].copy()
    learner.observe_speed("only", 0.5)
    assert learner.laws("chat", row).energy.coefficients[0] == pytest.approx(2.0 * before)


def test_it_knows_that_a_node_which_was_restarted_loads_its_model_again() -> None:
    learner, row = TrueLearner(CsUcb(), doubt=0.25), np.array([0])
    learner.seed_node(node("only", FAST))
    learner.warm("only", "chat")
    learner.cool("only")
    learner.learn(make_outcome(model="chat", node="only"))
    assert learner.laws("chat", row).cold(row, 0.0).tolist() == [1.0]
