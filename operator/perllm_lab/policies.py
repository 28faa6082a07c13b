"""Everything that can be simulated, by name.

cs-ucb        ours, with its order, dropping, ending and admission, which are part of it
cs-ucb-...    ours without one of its parts, for the ablation
clairvoyant   cs-ucb with the true laws and the true lengths; in hindsight the better of two attitudes
BASELINE      a baseline by its own rules: first come, first served; no task is dropped, ended or rejected
BASELINE+d    the same by deadline: earliest deadline first, dropped and ended at the deadline; none is rejected
BASELINE+x    the same extended: with the order and the whole admission of ours; the baseline only says where

The paper's own policy, cs-ucb-table, is a baseline. Former names are accepted: net-hits for cs-ucb.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from perllm.policy import contextual, table
from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from perllm.scheduling.admission import MIN_HIT_CHANCE
from perllm_lab.baselines import registry
from perllm_lab.baselines.admitted import Admitted
from perllm_lab.baselines.agod import Agod
from perllm_lab.baselines.tuned import find_parameters, load_agod_weights, load_tuned
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.placing import DEADLINE_MODE, LENIENT_MODE, OPERATOR_MODE, PLAIN_MODE, Placing
from perllm_lab.simulator.scheduler import Strategy

ALL = "all"
DEADLINE = "+d"
EXTENDED = "+x"
DEPLOYMENTS = ("", DEADLINE, EXTENDED)
"""Suffixes of the deployment modes of a baseline."""

CLAIRVOYANT = "clairvoyant"

HINDSIGHT: Mapping[str, tuple[str, ...]] = MappingProxyType({CLAIRVOYANT: (CLAIRVOYANT, "clairvoyant-wary")})
"""Policies of which several are run, and the best run counts."""

CLAIRVOYANTS: Mapping[str, tuple[float, CsUcbParameters]] = MappingProxyType(
    {
        CLAIRVOYANT: (0.25, CsUcbParameters(price=20.0)),
        "clairvoyant-wary": (1.0, CsUcbParameters(price=20.0, rent=2.0)),
    }
)
"""Deadlines first, then energy, with little doubt and with much; chosen on seed 101 of the scenarios and two traces."""

ABLATIONS: Mapping[str, CsUcbParameters] = MappingProxyType(
    {
        "cs-ucb-no-harm": CsUcbParameters(harm_weight=0.0),
        "cs-ucb-no-rent": CsUcbParameters(rent=0.0),
        "cs-ucb-no-admission": CsUcbParameters(floor=-np.inf),
        "cs-ucb-no-waiting": CsUcbParameters(waits=False),
        "cs-ucb-no-energy": CsUcbParameters(price=1e6),
        "cs-ucb-no-confidence": CsUcbParameters(confidence=0.0),
    }
)


class UnknownPolicyError(ValueError):
    """There is no such policy; the message lists the known ones."""


def baseline_names() -> tuple[str, ...]:
    """Return the names of all baselines."""
    return (table.NAME, *registry.policy_names())


def policy_names() -> tuple[str, ...]:
    """Return the names of all policies but the ablations, each baseline in every deployment mode."""
    deployed = [name + mode for name in baseline_names() for mode in DEPLOYMENTS]
    return (contextual.NAME, *deployed, CLAIRVOYANT)


def build_scheduler(name: str, context: BuildContext) -> Strategy:
    """Return a scheduler that knows nothing of the run to come.

    A baseline gets the parameters that served it best in that scenario and deployment mode, on seeds that are not
    judged; in a scenario that was not tuned for, those found for `modern`.

    Raises:
        UnknownPolicyError: there is no such policy.
    """
    if name == contextual.NAME or name in ABLATIONS:
        policy = CsUcb(ABLATIONS.get(name))
        return Placing(name, policy, OPERATOR_MODE, context.settings)
    if name in CLAIRVOYANTS:
        doubt, parameters = CLAIRVOYANTS[name]
        policy = CsUcb(parameters)
        return Placing(name, policy, OPERATOR_MODE, context.settings, learner=TrueLearner(policy, doubt))
    return build_baseline(name, context, find_parameters(load_tuned(), name, context.scenario.name))


def build_operator(name: str, context: BuildContext, *, strict: bool) -> Strategy:
    """Return the operator with one of its policies, as a lab configures it.

    Args:
        name: of the policy.
        context: of the simulation.
        strict: whether tasks may be rejected and ended.
    """
    mode = replace(OPERATOR_MODE, min_hit_chance=MIN_HIT_CHANCE) if strict else LENIENT_MODE
    policy = (
        CsUcb()
        if name == contextual.NAME
        else _make_baseline(name, context, find_settings(name, context.scenario.name))
    )
    return Placing(name, policy, mode, context.settings)


def find_settings(name: str, scenario: str) -> dict[str, Any]:
    """Return the parameters of one of the operator's policies found for a scenario; empty for its defaults."""
    return dict(find_parameters(load_tuned(), name + EXTENDED, scenario))


def configure_operator(name: str, scenario: str) -> dict[str, Any]:
    """Return the operator's `policy` setting for one of its policies, with the parameters found for a scenario."""
    parameters = find_settings(name, scenario)
    return {"name": name, **({name.replace("-", "_"): parameters} if parameters else {})}


def build_baseline(name: str, context: BuildContext, parameters: Mapping[str, Any]) -> Strategy:
    """Return a baseline with these parameters, in the deployment mode that its name says.

    Raises:
        UnknownPolicyError: there is no such baseline.
    """
    return deploy(name, _make_baseline(name, context, parameters), context)


def deploy(name: str, baseline: Policy, context: BuildContext) -> Strategy:
    """Return a scheduler that carries out a baseline's choices in the deployment mode that `name` says."""
    if name.endswith(EXTENDED):
        ours = CsUcbParameters()
        return Placing(name, Admitted(baseline, CsUcb(ours), ours.floor), OPERATOR_MODE, context.settings)
    return Placing(name, baseline, DEADLINE_MODE if name.endswith(DEADLINE) else PLAIN_MODE, context.settings)


def base_name(name: str) -> str:
    """Return the name of a baseline without its deployment mode."""
    return name.removesuffix(DEADLINE).removesuffix(EXTENDED)


def select_policies(text: str) -> tuple[str, ...]:
    """Return the policies that a list such as "cs-ucb-table,random+x", or "all", names; each once.

    Raises:
        UnknownPolicyError: one of them does not exist.
    """
    known = (*policy_names(), *ABLATIONS)
    if text.strip() == ALL:
        return policy_names()
    names = tuple(dict.fromkeys(_rename(name.strip()) for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UnknownPolicyError(f"no policy {', '.join(unknown) or repr(text)}; known: {', '.join(known)}, or {ALL}")
    return names


def _rename(name: str) -> str:
    former = contextual.FORMER_NAME
    return name.replace(former, contextual.NAME, 1) if name.startswith(former) else name


def _make_baseline(deployed: str, context: BuildContext, parameters: Mapping[str, Any]) -> Policy:
    name = base_name(deployed)
    if name == table.NAME:
        return CsUcbTable(CsUcbTableParameters(**parameters))
    if name not in registry.policy_names():
        raise UnknownPolicyError(f"no policy {name!r}; known: {', '.join(policy_names())}")
    baseline = registry.build_policy(name, context.rng, parameters)
    if isinstance(baseline, Agod):
        baseline.import_weights(load_agod_weights(deployed, context.scenario.name))
    return baseline
