"""Converts between the learner's state and the status of a profile.

The status has a part for people, and the learner's own state in a single field.
"""

from collections.abc import Mapping
from typing import Any

from perllm.api.node_profile import AnswerLength, EnergyLaw, LatencyLaw, ModelProfile, NodeProfileStatus
from perllm.cluster.node import Node
from perllm.cluster.times import to_time
from perllm.learning.learner import Learner
from perllm.learning.model_laws import ArmEstimate, ArmSummary
from perllm.learning.node_state import SCHEMA_VERSION, pack


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
        updated_time=to_time(now_s),
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


def _describe(model: str, summary: ArmSummary, estimate: ArmEstimate, policy: Mapping[str, float]) -> ModelProfile:
    return ModelProfile(
        model=model,
        count=summary.count,
        mean_reward=policy.get("meanReward"),
        mean_latency_seconds=summary.latency_s,
        mean_energy_joules=summary.energy_j if summary.energy_count else None,
        deadline_met_share=summary.met / max(summary.count, 1),
        last_outcome_time=to_time(summary.last_outcome_s),
        latency=_latency_law(estimate),
        energy=_energy_law(estimate),
        answers=AnswerLength(median_tokens=estimate.median_tokens, relative_spread=estimate.length_spread),
    )


def _latency_law(estimate: ArmEstimate) -> LatencyLaw:
    start_s, prompt_s, output_s, contention_s, _ = estimate.latency
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
