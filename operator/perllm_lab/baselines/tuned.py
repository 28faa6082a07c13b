"""The results of tuning, on seeds that are not judged; `perllm-lab tune` writes all files.

tuned.json          {policy with its deployment mode: {scenario: {parameter: value}}}
tuning.json         what they were chosen from: {policy: {scenario: loads, seeds, tasks, finalists with their scores}}
agod_weights.npz    pretrained weights of AGOD
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import IO, Any

import numpy as np

from perllm_lab.baselines.network import Tensor

TUNED = "tuned.json"
RECORD = "tuning.json"
AGOD_WEIGHTS = "agod_weights.npz"
FALLBACK = "modern"
"""The scenario whose parameters are used in scenarios that were not tuned for."""

JOINT = ("joint",)
"""The owner of weights learned in all scenarios."""

Weights = dict[str, Tensor]
WeightsByOwner = dict[tuple[str, ...], Weights]
Tuned = Mapping[str, Mapping[str, Mapping[str, Any]]]


def load_tuned() -> Tuned:
    """Return the parameters of every tuned policy in every scenario it was tuned for."""
    tuned: Tuned = json.loads((files(__package__) / TUNED).read_text("utf-8"))
    return tuned


def find_parameters(tuned: Tuned, policy: str, scenario: str) -> Mapping[str, Any]:
    """Return the parameters of a policy, named with its deployment mode, for a scenario.

    A scenario that was not tuned for gets those of `modern`, a policy that was not tuned gets its defaults.
    """
    scenarios = tuned.get(policy, {})
    return scenarios.get(scenario, scenarios.get(FALLBACK, {}))


def load_agod_weights(policy: str, scenario: str) -> Weights:
    """Return the weights that AGOD, named with its deployment mode, starts with in a scenario."""
    with (files(__package__) / AGOD_WEIGHTS).open("rb") as file:
        return find_weights(read_weights(file), policy, scenario)


def read_weights(file: IO[bytes]) -> WeightsByOwner:
    """Return the weights in a file by owner: `JOINT`, or a policy and a scenario."""
    weights: WeightsByOwner = {}
    with np.load(file) as arrays:
        for path in arrays.files:
            *owner, name = path.split("/")
            weights.setdefault(tuple(owner), {})[name] = arrays[path]
    return weights


def find_weights(weights: WeightsByOwner, policy: str, scenario: str) -> Weights:
    """Return the weights for a policy in a scenario, or the joint ones where it has none of its own."""
    return weights.get((policy, scenario), weights[JOINT])
