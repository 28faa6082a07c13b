"""Everything that can be simulated, by name.

net-hits        ours, with its order, dropping, ending and admission, which are part of it
net-hits-...    ours without one of its parts, for the ablation
clairvoyant     net-hits with the true laws and the true lengths
RIVAL           a rival by its own rules: first come, first served, nothing is dropped, ended or refused
RIVAL+x         the same rival with the order, dropping, ending and admission of ours
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from perllm.api.task import Tier
from perllm.policy import cs_ucb, net_hits
from perllm.policy.cs_ucb import CsUcb, CsUcbParameters
from perllm.policy.net_hits import NetHits, NetHitsParameters
from perllm.policy.problem import Policy
from perllm_lab.baselines import registry
from perllm_lab.baselines.agod import Agod
from perllm_lab.baselines.tuned import find_parameters, load_agod_weights, load_tuned
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.placing import FULL, PLAIN, Placing, Rules
from perllm_lab.simulator.scheduler import Scheduler

ALL = "all"
DRESSED = "+x"
CLAIRVOYANT = "clairvoyant"

DRESSED_FLOOR = 0.15
"""A rival in `+x` dress is refused a task whose chance, net of harm, is not above this."""

CLAIRVOYANT_PARAMETERS = NetHitsParameters(price=20.0)
"""Deadlines first, then energy."""

ABLATIONS: Mapping[str, NetHitsParameters] = MappingProxyType(
    {
        "net-hits-no-harm": NetHitsParameters(harm_weight=0.0),
        "net-hits-no-rent": NetHitsParameters(rent=0.0),
        "net-hits-no-admission": NetHitsParameters(floor=-np.inf),
        "net-hits-no-waiting": NetHitsParameters(waits=False),
        "net-hits-no-energy": NetHitsParameters(price=1e6),
    }
)


class UnknownPolicyError(ValueError):
    """There is no such policy; the message lists those there are."""


def rival_names() -> tuple[str, ...]:
    """Return the names of all rivals."""
    return (cs_ucb.NAME, *registry.policy_names())


def policy_names() -> tuple[str, ...]:
    """Return the names of all policies but the ablations, each rival in both dresses."""
    dressed = [name + dress for name in rival_names() for dress in ("", DRESSED)]
    return (net_hits.NAME, *dressed, CLAIRVOYANT)


def build_scheduler(name: str, context: BuildContext) -> Scheduler:
    """Return a scheduler that has learned nothing of the run to come.

    A rival has the parameters that served it best in the scenario of that name and in its dress, on seeds that are not
    judged; in scenarios that nothing was tuned for, those found for `modern`.

    Raises:
        UnknownPolicyError: there is no such policy.
    """
    transmission = {tier: context.settings.j_per_bit(tier.value) for tier in Tier}
    if name == net_hits.NAME or name in ABLATIONS:
        policy = NetHits(ABLATIONS.get(name))
        return Placing(name, policy, Rules(), transmission_j_per_bit=transmission)
    if name == CLAIRVOYANT:
        policy = NetHits(CLAIRVOYANT_PARAMETERS)
        learner = TrueLearner(policy)
        return Placing(name, policy, Rules(), transmission_j_per_bit=transmission, learner=learner)
    return build_rival(name, context, find_parameters(load_tuned(), name, context.scenario.name))


def build_rival(name: str, context: BuildContext, parameters: Mapping[str, Any]) -> Scheduler:
    """Return a rival with these parameters, in the dress that its name says.

    Raises:
        UnknownPolicyError: there is no such rival.
    """
    return dress_rival(name, _make_rival(name, context, parameters), context)


def dress_rival(name: str, rival: Policy, context: BuildContext) -> Scheduler:
    """Return a scheduler that carries out a rival's choices in the dress that `name` says."""
    transmission = {tier: context.settings.j_per_bit(tier.value) for tier in Tier}
    rules = (
        Rules(FULL, floor=DRESSED_FLOOR) if name.endswith(DRESSED) else Rules(PLAIN, by_deadline=False, admits=False)
    )
    return Placing(name, rival, rules, transmission_j_per_bit=transmission)


def select_policies(text: str) -> tuple[str, ...]:
    """Return the policies that a list such as "cs-ucb,random+x", or "all", names; each once.

    Raises:
        UnknownPolicyError: one of them does not exist.
    """
    known = (*policy_names(), *ABLATIONS)
    if text.strip() == ALL:
        return policy_names()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UnknownPolicyError(f"no policy {', '.join(unknown) or repr(text)}; known: {', '.join(known)}, or {ALL}")
    return names


def _make_rival(dressed: str, context: BuildContext, parameters: Mapping[str, Any]) -> Policy:
    name = dressed.removesuffix(DRESSED)
    if name == cs_ucb.NAME:
        return CsUcb(CsUcbParameters(**parameters))
    if name not in registry.policy_names():
        raise UnknownPolicyError(f"no policy {name!r}; known: {', '.join(policy_names())}")
    rival = registry.build_policy(name, context.rng, parameters)
    if isinstance(rival, Agod):
        rival.import_weights(load_agod_weights(dressed, context.scenario.name))
    return rival
