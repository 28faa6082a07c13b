"""Restores what an earlier process had learned on a node."""

from typing import Any

from perllm.learning.learner import Learner
from perllm.learning.model_laws import ArmSummary
from perllm.learning.node_state import ArmState, NodeState, StateError
from perllm.learning.recent import RecentOutcomes
from perllm.policy import contextual, table
from perllm.text import clean_line


def restore(learner: Learner, name: str, state: NodeState, policy: str, now_s: float) -> int:
    """Restore what was learned about a node by an earlier process; return the number of outcomes.

    Args:
        learner: learner to restore.
        name: name of the node.
        state: as it was stored.
        policy: name of the policy. The policy state of another one is ignored; laws are restored in any case.
        now_s: Unix time. Later timestamps are limited to it, since they would make new outcomes look known.

    Raises:
        StateError: the state cannot have been learned; nothing of it is restored.
    """
    times_s = [min(time_s, now_s) for time_s in state.recent_times]
    recent = RecentOutcomes(state.recent, times_s, min(state.recent_since, now_s))
    has_policy = _name_policy(state) == policy
    arms = [(arm.model, _summarise(arm, now_s), _to_laws(arm, has_policy=has_policy)) for arm in state.models]
    learner.register(name, state.gpu_type)
    try:
        learner.import_node(name, arms, recent)
    except ValueError as error:
        raise StateError(clean_line(error)) from error
    learner.forgotten[name] = state.forgotten
    return sum(arm.count for arm in state.models)


def _name_policy(state: NodeState) -> str:
    """Return the present name of the policy that wrote a state."""
    if state.policy == contextual.FORMER_NAME:
        return contextual.NAME
    if state.policy == table.FORMER_NAME and any(table.MEAN_REWARD in (arm.policy or {}) for arm in state.models):
        return table.NAME
    return state.policy


def _summarise(arm: ArmState, now_s: float) -> ArmSummary:
    return ArmSummary(
        count=arm.count,
        latency_s=arm.latency_seconds,
        energy_j=arm.energy_joules,
        energy_count=arm.energy_count,
        output_tokens=arm.output_tokens,
        met=arm.met,
        last_outcome_s=min(arm.last_outcome, now_s),
    )


def _to_laws(arm: ArmState, *, has_policy: bool) -> dict[str, Any]:
    laws = arm.model_dump(by_alias=True, include={"policy", "latency", "energy", "lengths", "load_seconds", "warm"})
    return laws if has_policy else {**laws, "policy": None}
