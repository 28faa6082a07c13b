"""The baselines by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from numpy.random import Generator

from perllm.policy.problem import Policy
from perllm_lab.baselines.agod import Agod, AgodParameters
from perllm_lab.baselines.cloud_only import CloudOnly
from perllm_lab.baselines.edge_only import EdgeOnly
from perllm_lab.baselines.fastest_first import FastestFirst
from perllm_lab.baselines.fineinfer import FineInfer, FineInferParameters
from perllm_lab.baselines.greedy_energy import GreedyEnergy
from perllm_lab.baselines.least_allocated import LeastAllocated
from perllm_lab.baselines.least_loaded import LeastLoaded
from perllm_lab.baselines.random_node import RandomNode
from perllm_lab.baselines.rewardless_guidance import RewardlessGuidance, RewardlessParameters
from perllm_lab.baselines.round_robin import RoundRobin

Parameters = Mapping[str, Any]

_PLAIN: Mapping[str, Callable[[Generator], Policy]] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            LeastAllocated,
            RandomNode,
            RoundRobin,
            LeastLoaded,
            CloudOnly,
            EdgeOnly,
            GreedyEnergy,
            FastestFirst,
        )
    }
)
_TUNABLE: Mapping[str, Callable[[Generator, Parameters], Policy]] = MappingProxyType(
    {
        FineInfer.name: lambda rng, given: FineInfer(rng, FineInferParameters(**given)),
        Agod.name: lambda rng, given: Agod(rng, AgodParameters(**given)),
        RewardlessGuidance.name: lambda rng, given: RewardlessGuidance(rng, RewardlessParameters(**given)),
    }
)


def policy_names() -> list[str]:
    """Return the names of all baselines, those of the literature first."""
    return [*_TUNABLE, *_PLAIN]


def build_policy(name: str, rng: Generator, parameters: Parameters | None = None) -> Policy:
    """Return a baseline that has learned nothing.

    Args:
        name: one of `policy_names()`.
        rng: the source of everything it draws.
        parameters: fields of its parameters that differ from their defaults.

    Raises:
        ValueError: there is no such baseline or parameter.
    """
    given = parameters or {}
    if name in _TUNABLE:
        try:
            return _TUNABLE[name](rng, given)
        except TypeError as error:
            raise ValueError(f"parameters of {name}: {error}") from error
    if name not in _PLAIN:
        raise ValueError(f"no baseline {name}; known: {', '.join(policy_names())}")
    if given:
        raise ValueError(f"{name} has no parameters: {', '.join(given)}")
    return _PLAIN[name](rng)
