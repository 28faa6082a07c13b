"""Converts between the learner's state and the status of a profile.

The status has a part for people, and the learner's own state in a single field.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from perllm.api.node_profile import AnswerLength, EnergyLaw, LatencyLaw, ModelProfile, NodeProfileStatus
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.learning.model_laws import ArmEstimate, ArmSummary
from perllm.learning.node_state import SCHEMA_VERSION, ArmState, StateError, pack, read_state
from perllm.learning.recent import RecentOutcomes
from perllm.text import clean_line


def export_status(learner: Learner, node: Node, policy: str, now_s: float) -> NodeProfileStatus:
    """Return everything learned about a node, as of Unix time `now_s`."""
    summaries = learner.summaries(node.name)
    arms = {model: learner.export_arm(node.name, model) for model in summaries}
    count = sum(one.count for one in summaries.values())
    measured = sum(one.energy_count for one in summaries.values())
    return NodeProfileStatus(
        schema_version=SCHEMA_VERSION,
        policy=policy,
        gpu_type=node.gpu_type,
        tier=node.tier,
        updated_time=datetime.fromtimestamp(now_s, UTC),
        outcomes=count,
        forgotten_models=learner.forgotten[node.name],
        mean_latency_seconds=sum(one.count * one.latency_s for one in summaries.values()) / max(count, 1),
        mean_energy_joules=sum(one.energy_count * one.energy_j for one in summaries.values()) / measured
        if measured
        else None,
        models=tuple(
            _describe(model, summary, learner.estimate(node.name, model), arms[model]["policy"])
            for model, summary in sorted(summaries.items())
        ),
        state={"data": pack(_export_state(learner, node, policy, summaries, arms))},
    )


def restore(learner: Learner, name: str, status: Mapping[str, Any], policy: str, now_s: float) -> int:
    """Restore what was learned about a node from the status of its profile; return the number of outcomes.

    Args:
        learner: learner to restore.
        name: name of the node.
        status: status of the profile on the API server; untrusted, since users may have written it.
        policy: name of the policy. The policy state of another one is ignored; laws are restored in any case.
        now_s: Unix time. Later timestamps are limited to it, since they would make new outcomes look known.

    Raises:
        StateError: the state cannot have been learned; nothing of it is restored.
    """
    state = read_state(status)
    times_s = [min(time_s, now_s) for time_s in state.recent_times]
    recent = RecentOutcomes(state.recent, times_s, min(state.recent_since, now_s))
    arms = [
        (arm.model, _summarise(arm, now_s), _to_laws(arm, has_policy=state.policy == policy)) for arm in state.models
    ]
    learner.register(name, state.gpu_type)
    try:
        learner.import_node(name, arms, recent)
    except ValueError as error:
        raise StateError(clean_line(error)) from error
    learner.forgotten[name] = state.forgotten
    return sum(arm.count for arm in state.models)


def _export_state(
    learner: Learner, node: Node, policy: str, summaries: Mapping[str, ArmSummary], arms: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    recent = learner.recent(node.name)
    return {
        "policy": policy,
        "gpuType": node.gpu_type,
        "models": [
            {
                "model": model,
                "count": summary.count,
                "met": summary.met,
                "energyCount": summary.energy_count,
                "latencySeconds": summary.latency_s,
                "energyJoules": summary.energy_j,
                "outputTokens": summary.output_tokens,
                "lastOutcome": summary.last_outcome_s,
                **arms[model],
            }
            for model, summary in summaries.items()
        ],
        "forgotten": learner.forgotten[node.name],
        "recent": recent.ids,
        "recentTimes": recent.times_s,
        "recentSince": recent.since_s,
    }


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


def _describe(model: str, summary: ArmSummary, estimate: ArmEstimate, policy: Mapping[str, float]) -> ModelProfile:
    return ModelProfile(
        model=model,
        count=summary.count,
        mean_reward=policy.get("meanReward"),
        mean_latency_seconds=summary.latency_s,
        mean_energy_joules=summary.energy_j if summary.energy_count else None,
        deadline_met_share=summary.met / max(summary.count, 1),
        last_outcome_time=datetime.fromtimestamp(summary.last_outcome_s, UTC),
        latency=_latency_law(estimate),
        energy=_energy_law(estimate),
        answers=AnswerLength(median_tokens=estimate.median_tokens, relative_spread=estimate.length_spread),
    )


def _latency_law(estimate: ArmEstimate) -> LatencyLaw:
    start_s, prompt_s, output_s, contention_s = estimate.latency
    return LatencyLaw(
        start_seconds=start_s,
        load_seconds=estimate.load_s,
        seconds_per_thousand_prompt_tokens=prompt_s,
        seconds_per_hundred_output_tokens=output_s,
        seconds_per_hundred_output_tokens_and_task=contention_s,
        relative_uncertainty=estimate.latency_spread,
    )


def _energy_law(estimate: ArmEstimate) -> EnergyLaw:
    prompt_j, output_j, shared_j = estimate.energy
    return EnergyLaw(
        joules_per_thousand_prompt_tokens=prompt_j,
        joules_per_hundred_output_tokens=output_j,
        shared_joules_per_hundred_output_tokens=shared_j,
        relative_uncertainty=estimate.energy_spread,
    )
