from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from perllm_lab import policies
from perllm_lab.baselines.agod import Agod
from perllm_lab.baselines.tuned import JOINT, find_parameters, find_weights, load_agod_weights, load_tuned, read_weights
from perllm_lab.policies import build_baseline, build_scheduler, policy_names
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.tuning.pretraining import write_weights
from perllm_lab.workload.scenarios import load_scenario, scenario_names

TUNED = {"fineinfer+x": {"paper": {"risk": 7.0}, "modern": {"risk": 3.0}}}


def context(scenario: str) -> BuildContext:
    renamed = load_scenario("modern").model_copy(update={"name": scenario})
    return BuildContext(renamed, default_rng(0), SimulationSettings())


@pytest.mark.parametrize(
    ("policy", "scenario", "parameters"),
    [
        ("fineinfer+x", "paper", {"risk": 7.0}),
        ("fineinfer+x", "of-somebody-else", {"risk": 3.0}),
        ("fineinfer", "paper", {}),
        ("random+x", "paper", {}),
    ],
)
def test_a_baseline_is_built_with_what_was_tuned_for_the_scenario_and_deployment_mode(
    policy: str, scenario: str, parameters: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Mapping[str, Any]] = []
    monkeypatch.setattr(policies, "load_tuned", lambda: TUNED)
    monkeypatch.setattr(policies, "build_baseline", lambda name, context, given: used.append(given))
    build_scheduler(policy, context(scenario))
    assert used == [parameters]


def test_what_was_tuned_is_there_and_fits_the_policies() -> None:
    tuned = load_tuned()
    assert tuned.keys() <= set(policy_names())
    for policy, scenarios in tuned.items():
        assert scenarios.keys() <= set(scenario_names())
        assert "modern" in scenarios, "what other scenarios fall back to"
        for scenario in scenarios:
            build_baseline(policy, context(scenario), find_parameters(tuned, policy, scenario))


def test_agod_starts_with_the_weights_it_learned_for_its_deployment_mode_and_scenario_or_the_joint_ones(
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.npz"
    write_weights(path, {JOINT: {"a": np.zeros(1)}, ("agod+x", "paper"): {"a": np.ones(1)}})
    with path.open("rb") as file:
        weights = read_weights(file)
    cells = [("agod", "paper"), ("agod+x", "paper"), ("agod+x", "modern")]
    found = [find_weights(weights, policy, scenario)["a"][0] for policy, scenario in cells]
    assert found == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("policy", ["agod", "agod+x"])
@pytest.mark.parametrize("scenario", scenario_names())
def test_agod_takes_the_weights_that_are_there(policy: str, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_agod_weights(policy, scenario)
    Agod(default_rng(0)).import_weights(weights)
    taken: list[Mapping[str, Any]] = []
    monkeypatch.setattr(Agod, "import_weights", lambda _, given: taken.append(given))
    build_baseline(policy, context(scenario), {})
    assert all(np.array_equal(taken[0][name], weight) for name, weight in weights.items())
