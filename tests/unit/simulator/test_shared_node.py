"""One H100 that is given a task of each of several models every second, each of which takes 2 s there by itself."""

from dataclasses import replace

import numpy as np
import pytest

from perllm.learning.learner import Learner
from perllm.policy.contextual import CsUcb
from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.placing import OPERATOR_MODE, Placing
from perllm_lab.simulator.result import RunResult
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request
from unit.simulator.small_fleet import FAST_LINK, fleet

GPU = replace(CATALOGUE["h100-8b"], pod_start_s=0.0, model_load_s=0.0)
PROMPT, LENGTHS = 400, (150, 400)
SECONDS = 60.0


def run(*models: str, others_from_s: float = 0.0) -> tuple[RunResult, Learner]:
    """Let the first model be asked for from the beginning on, and the others from that time on."""
    rng = np.random.default_rng(0)
    requests = [
        Request("task", model, at_s, PROMPT, int(rng.integers(*LENGTHS)), 0, 100.0)
        for model in models
        for at_s in rng.uniform(0.0, SECONDS, round(SECONDS)).tolist()
        if model == models[0] or at_s >= others_from_s
    ]
    policy = CsUcb()
    learner, settings = Learner(policy), SimulationSettings(energy_error=0.0)
    placing = Placing("cs-ucb", policy, OPERATOR_MODE, settings, learner=learner)
    plan = fleet(NodeSpec("n", "cloud", "a", GPU, FAST_LINK))
    return simulate(plan, sorted(requests, key=lambda one: one.at_s), placing, settings), learner


@pytest.mark.parametrize("models", [("a",), ("a", "b")])
def test_the_law_of_a_model_is_that_of_one_that_has_the_gpu_to_itself(models: tuple[str, ...]) -> None:
    _, learner = run(*models)
    rates = learner.laws("a", np.array([0])).find_rates(np.array([0]), is_served=False)
    true_s = GPU.iteration_s(2, PROMPT + sum(LENGTHS) / 4)
    assert rates.find_token_s(1.0)[0] == pytest.approx(true_s, rel=0.15)


@pytest.mark.parametrize("models", [("a",), ("a", "b"), ("a", "b", "c")])
def test_forecasts_are_about_right_soon_after_other_models_are_asked_for_too(
    models: tuple[str, ...],
) -> None:
    tasks = run(*models, others_from_s=SECONDS / 2)[0].tasks
    first = (tasks.at_s > SECONDS / 2 + 4.0) & (tasks.at_s < SECONDS / 2 + 14.0)
    took_s, foreseen_s = (tasks.finished_s - tasks.decided_s)[first], tasks.forecast["given_latency_s"][first]
    assert took_s.sum() == pytest.approx(foreseen_s.sum(), rel=0.35)
