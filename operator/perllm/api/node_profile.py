"""The ``LLMNodeProfile``: what has been learned about one node, stored in the cluster so that it survives restarts."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, WithJsonSchema

from perllm.api.base import Figure, Joules, Resource, Seconds, Text
from perllm.api.task import Tier

MAX_MODELS = 64
MAX_RECENT = 512

_State = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
_OLD = "Used up to schema version 2. Still read, no longer written."


ModelName = Annotated[str, Field(min_length=1, max_length=253)]
_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}


class LatencyLaw(Resource):
    """The time that a task takes on the node, broken down by cause and without the transfer of its input."""

    start_seconds: Figure = Field(description="Seconds from the decision until the container runs.")
    load_seconds: Figure = Field(description="Seconds to load the model if it is not in memory.")
    seconds_per_thousand_prompt_tokens: Figure = Field(description="Seconds to process 1,000 prompt tokens.")
    seconds_per_hundred_output_tokens: Figure = Field(
        description="Seconds to generate 100 tokens with no other task on the GPU."
    )
    seconds_per_hundred_output_tokens_and_task: Figure = Field(
        description="Seconds that each further task on the GPU adds to 100 tokens."
    )
    relative_uncertainty: Figure = Field(
        description="Standard deviation of ln(actual / predicted), given the length of the answer."
    )


class EnergyLaw(Resource):
    """The energy that a task takes on the node, broken down by cause and without the transfer of its input."""

    joules_per_thousand_prompt_tokens: Figure = Field(description="Joules to process 1,000 prompt tokens.")
    joules_per_hundred_output_tokens: Figure = Field(
        description="Joules to generate 100 tokens that do not depend on the number of tasks on the GPU."
    )
    shared_joules_per_hundred_output_tokens: Figure = Field(
        description="Joules of 100 decoding iterations, shared by all tasks on the GPU."
    )
    relative_uncertainty: Figure = Field(
        description="Standard deviation of ln(actual / predicted), given the length of the answer."
    )


class AnswerLength(Resource):
    """The length of the model's answers on all nodes, for tasks that give no hint."""

    median_tokens: Figure = Field(description="Tokens of the answer to a prompt of typical length.")
    relative_spread: Figure = Field(description="Standard deviation of ln(actual / median).")


class ModelProfile(Resource):
    """What has been learned about one model on the node."""

    model: ModelName = Field(description="Name of the model.")
    count: int = Field(default=0, ge=0, description="Number of outcomes learned from.")
    mean_reward: float | None = Field(
        default=None, allow_inf_nan=False, description="Mean reward, for policies that have one."
    )
    mean_latency_seconds: Seconds | None = Field(default=None, description="Mean seconds from creation to completion.")
    mean_energy_joules: Joules | None = Field(default=None, description="Mean joules per task.")
    deadline_met_share: float | None = Field(
        default=None, ge=0, le=1, description="Share of tasks that completed by their deadline."
    )
    last_outcome_time: AwareDatetime | None = Field(default=None, description="When the last outcome was learned.")
    latency: LatencyLaw | None = Field(default=None, description="Law of the time that a task takes.")
    energy: EnergyLaw | None = Field(default=None, description="Law of the energy that a task takes.")
    answers: AnswerLength | None = Field(default=None, description="Length of answers.")
    state: _State | None = Field(default=None, description=_OLD)


class CircuitState(StrEnum):
    """Whether a node receives tasks."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitStatus(Resource):
    """Whether the node receives tasks, after recent ones were refused or failed there."""

    state: CircuitState = Field(
        description="closed: the node receives tasks; open: none for a while; half-open: one at a time, as a probe."
    )
    reason: Annotated[str, Field(max_length=1024)] = Field(default="", description="What last went wrong there.")
    since: AwareDatetime = Field(description="When the circuit last opened or closed.")
    models: tuple[ModelName, ...] = Field(
        default=(),
        description="Models whose tasks the node does not receive; all models if empty.",
        json_schema_extra=_ATOMIC,
    )
    namespaces: tuple[Text, ...] = Field(
        default=(),
        description="Namespaces whose tasks the node does not receive; all namespaces if empty.",
        json_schema_extra=_ATOMIC,
    )


class ServingStatus(Resource):
    """What the model servers of the node serve. The LLMNodeServer of the node has more, and is always current."""

    ready: Text = Field(default="0/0", description="How many of the model servers accept requests.")
    models: tuple[ModelName, ...] = Field(
        default=(),
        max_length=MAX_MODELS,
        description="The models that can be asked for now.",
        json_schema_extra=_ATOMIC,
    )
    busy: Text = Field(
        default="0",
        description="Requests in process, of how many at a time if that is known, such as 7/16. Up to a minute old.",
    )
    foreign: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Requests that are not PerLLM's, in process or waiting. Up to a minute old."
    )


class NodeProfileStatus(Resource):
    """What has been learned about the node. Written only by PerLLM."""

    schema_version: int = Field(default=1, ge=1, description="Version of the format of this state.")
    policy: Text | None = Field(default=None, description="The policy that was in use.")
    gpu_type: Text | None = Field(default=None, description="The node's GPU type.")
    tier: Tier | None = Field(default=None, description="The node's tier.")
    updated_time: AwareDatetime | None = Field(default=None, description="When this status was written.")
    outcomes: int = Field(default=0, ge=0, description="Number of outcomes learned from, over all models.")
    forgotten_models: int = Field(
        default=0,
        ge=0,
        description="Number of models forgotten because there were too many; those with the oldest outcomes go first.",
    )
    mean_latency_seconds: Seconds | None = Field(
        default=None, description="Mean seconds from creation to completion, over all models."
    )
    mean_energy_joules: Joules | None = Field(default=None, description="Mean joules per task, over all models.")
    idle_power_watts: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Power of the idle node in watts."
    )
    circuit: CircuitStatus | None = Field(default=None, description="Whether the node receives tasks.")
    serving: ServingStatus | None = Field(
        default=None, description="What the model servers of the node serve, if it has an agent."
    )
    models: tuple[ModelProfile, ...] = Field(
        default=(),
        max_length=MAX_MODELS,
        description="What has been learned, per model, for people to read. Edits have no effect.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["model"]},
    )
    state: _State = Field(
        default_factory=dict,
        description="The learner's own state in the field data, compressed. It is read back as a whole or not at all.",
    )
    recent: tuple[Annotated[str, Field(max_length=64)], ...] | None = Field(
        default=None,
        max_length=MAX_RECENT,
        description=_OLD,
        json_schema_extra=_ATOMIC,
    )
