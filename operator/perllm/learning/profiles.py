"""Keeps the learned state in LLMNodeProfile objects: read back on start, written behind the hot path.

A profile is owned by its node, so it goes when the node goes. Several operators of a cluster have profiles of their
own, told apart by a label. A state that this version cannot read is left alone on the API server until the node's next
outcome, and said in the log; the node then starts afresh.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from perllm.api import names
from perllm.api.node_profile import AnswerLength, CircuitState, EnergyLaw, LatencyLaw, ModelProfile, NodeProfileStatus
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.node import Node
from perllm.learning.learner import ArmEstimate, ArmSummary, Learner
from perllm.learning.recent import RecentOutcomes

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
WRITE_INTERVAL_S = 2.0
MAX_WRITES_AT_A_TIME = 8
MAX_LOAD_DELAY_S = 10.0


class ProfileStore:
    """Reads and writes what was learned.

    Attributes:
        tripped: nodes whose profiles, when they were read, showed that they were not given tasks.

    Args:
        client: the API server.
        learner: whose state is kept.
        policy: name of the policy; its part of a state written by another one is not taken over.
        node_of: returns a node of the fleet by name, None if it is not there.
        instance: name of this operator among several of the cluster; empty for one that needs none.
    """

    def __init__(
        self,
        client: Client,
        learner: Learner,
        *,
        policy: str,
        node_of: Callable[[str], Node | None],
        instance: str = "",
    ) -> None:
        self._client = client
        self._learner = learner
        self._policy = policy
        self._node_of = node_of
        self._instance = instance
        self._prefix = names.profile_prefix(instance)
        self._existing: set[str] = set()
        self.tripped: set[str] = set()

    async def load(self) -> int:
        """Take back what was learned before, once the API server answers; return the number of outcomes in it.

        Raises:
            ApiError: the API server refuses; 404 means that the resources are not installed.
        """
        listing = await self._list()
        outcomes = 0
        for item in listing["items"]:
            name = item["metadata"]["name"].removeprefix(self._prefix)
            self._existing.add(name)
            circuit = (item.get("status") or {}).get("circuit") or {}
            if circuit.get("state") not in (None, CircuitState.CLOSED):
                self.tripped.add(name)
            outcomes += self._restore(name, item)
        return outcomes

    async def run(self) -> None:
        """Write changed profiles until cancelled."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write every profile that changed; those that could not be written stay changed."""
        dirty, self._learner.dirty = self._learner.dirty, set()
        limit = asyncio.Semaphore(MAX_WRITES_AT_A_TIME)
        await asyncio.gather(*(self._write(name, limit) for name in sorted(dirty)))

    async def _list(self) -> Object:
        own = names.select_instance(self._instance)
        delay_s = 0.5
        while True:
            try:
                return await self._client.get(names.node_profiles_path(), labelSelector=own)
            except ApiError as error:
                if error.status == 404:
                    hint = "the PerLLM resources are not installed: perllm crds | kubectl apply -f -"
                    raise ApiError(404, error.reason, hint) from error
                if not error.is_transient:
                    raise
                log.warning("the learned state cannot be read yet, trying again: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_LOAD_DELAY_S)

    async def _write(self, name: str, limit: asyncio.Semaphore) -> None:
        node = self._node_of(name)
        if node is None:
            return
        async with limit:
            try:
                if name not in self._existing:
                    await self.create(node)
                path = names.node_profile_status_path(self._prefix + name)
                await self._client.patch(path, {"status": self._export(node).to_object()})
            except ApiError as error:
                if error.status == 404:
                    self._existing.discard(name)
                self._learner.dirty.add(name)
                log.warning("what was learned on %s is not saved yet, trying again: %s", name, error)

    async def create(self, node: Node) -> None:
        """Create the profile of a node, if there is none.

        Raises:
            ApiError: the API server refuses.
        """
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.NODE_PROFILE_KIND,
            "metadata": {
                "name": self._prefix + node.name,
                "labels": {names.INSTANCE_LABEL: self._instance} if self._instance else {},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
            },
        }
        try:
            await self._client.post(names.node_profiles_path(), body)
        except ApiError as error:
            if error.status != 409:
                raise
        self._existing.add(node.name)

    def _export(self, node: Node) -> NodeProfileStatus:
        summaries = self._learner.summaries(node.name)
        recent = self._learner.recent(node.name)
        count = sum(one.count for one in summaries.values())
        measured = sum(one.energy_count for one in summaries.values())
        return NodeProfileStatus(
            schema_version=SCHEMA_VERSION,
            policy=self._policy,
            gpu_type=node.gpu_type,
            tier=node.tier,
            updated_time=datetime.now(UTC),
            outcomes=count,
            mean_latency_seconds=sum(one.count * one.latency_s for one in summaries.values()) / max(count, 1),
            mean_energy_joules=sum(one.energy_count * one.energy_j for one in summaries.values()) / measured
            if measured
            else None,
            models=tuple(self._export_model(node.name, model, one) for model, one in sorted(summaries.items())),
            recent=tuple(recent.ids),
            state={"recentSince": recent.since_s, "recentTimes": recent.times_s},
        )

    def _export_model(self, node: str, model: str, summary: ArmSummary) -> ModelProfile:
        state = self._learner.export_arm(node, model)
        estimate = self._learner.estimate(node, model)
        return ModelProfile(
            model=model,
            count=summary.count,
            mean_reward=state["policy"].get("meanReward"),
            mean_latency_seconds=summary.latency_s,
            mean_energy_joules=summary.energy_j if summary.energy_count else None,
            deadline_met_share=summary.met / max(summary.count, 1),
            last_outcome_time=datetime.fromtimestamp(summary.last_outcome_s, UTC),
            latency=_latency_law(estimate),
            energy=_energy_law(estimate),
            answers=AnswerLength(
                median_tokens=estimate.median_tokens,
                relative_spread=estimate.length_spread,
            ),
            state={
                **state,
                "energyCount": summary.energy_count,
                "outputTokens": summary.output_tokens,
                "latencySeconds": summary.latency_s,
                "energyJoules": summary.energy_j,
                "met": summary.met,
            },
        )

    def _restore(self, name: str, item: Object) -> int:
        try:
            status = NodeProfileStatus.model_validate(item.get("status") or {})
            if status.schema_version != SCHEMA_VERSION:
                raise ValueError(f"schema version {status.schema_version} instead of {SCHEMA_VERSION}")
            self._learner.register(name, status.gpu_type or "")
            recent = _read_recent(status)
            arms = [(profile.model, _read_summary(profile), dict(profile.state)) for profile in status.models]
            if status.policy != self._policy:
                arms = [(model, summary, {**state, "policy": None}) for model, summary, state in arms]
            self._learner.import_node(name, arms, recent)
        except (ValidationError, ValueError, TypeError) as error:
            log.warning("what was learned on %s cannot be read and starts afresh: %s", name, error)
            return 0
        return sum(profile.count for profile in status.models)


def _latency_law(estimate: ArmEstimate) -> LatencyLaw:
    start_s, prompt_s, output_s, crowd_s = estimate.latency
    return LatencyLaw(
        start_seconds=start_s,
        load_seconds=estimate.load_s,
        seconds_per_thousand_prompt_tokens=prompt_s,
        seconds_per_hundred_output_tokens=output_s,
        seconds_per_hundred_output_tokens_and_task=crowd_s,
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


def _read_recent(status: NodeProfileStatus) -> RecentOutcomes:
    times_s = [float(time_s) for time_s in status.state.get("recentTimes", ())]
    return RecentOutcomes(status.recent, times_s, float(status.state.get("recentSince", 0.0)))


def _read_summary(profile: ModelProfile) -> ArmSummary:
    state: dict[str, Any] = profile.state
    try:
        return ArmSummary(
            count=profile.count,
            latency_s=float(state["latencySeconds"]),
            energy_j=float(state["energyJoules"]),
            energy_count=int(state["energyCount"]),
            output_tokens=float(state["outputTokens"]),
            met=int(state["met"]),
            last_outcome_s=profile.last_outcome_time.timestamp() if profile.last_outcome_time else 0.0,
        )
    except KeyError as error:
        raise ValueError(f"the state of model {profile.model} lacks {error}") from error
