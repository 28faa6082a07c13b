"""The ``LLMNodeProfile``: what has been learned on one node, kept in the cluster so that it survives restarts."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, WithJsonSchema

from perllm.api.base import Figure, Joules, Resource, Seconds, Text
from perllm.api.task import Tier

MAX_MODELS = 64
MAX_RECENT = 512

_State = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
_OLD = "Up to schema version 2; read once and no longer written."


ModelName = Annotated[str, Field(min_length=1, max_length=253)]
_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}


class LatencyLaw(Resource):
    """How long a task takes on the node, as a sum of its parts; the transfer of its input comes on top."""

    start_seconds: Figure = Field(description="Seconds from the decision until the container works.")
    load_seconds: Figure = Field(description="Seconds to load the model, where it is not loaded.")
    seconds_per_thousand_prompt_tokens: Figure = Field(description="Seconds to read 1,000 tokens.")
    seconds_per_hundred_output_tokens: Figure = Field(description="Seconds to write 100 tokens, alone on the GPU.")
    seconds_per_hundred_output_tokens_and_task: Figure = Field(
        description="Seconds that every further task on the GPU adds to 100 tokens."
    )
    relative_uncertainty: Figure = Field(
        description="Standard deviation of ln(actual / predicted) once the length of the answer is known."
    )


class EnergyLaw(Resource):
    """What a task costs on the node, as a sum of its parts; moving its input comes on top."""

    joules_per_thousand_prompt_tokens: Figure = Field(description="Joules to read 1,000 tokens.")
    joules_per_hundred_output_tokens: Figure = Field(description="Joules to write 100 tokens, however many tasks run.")
    shared_joules_per_hundred_output_tokens: Figure = Field(
        description="Joules of 100 iterations, which all tasks on the GPU share."
    )
    relative_uncertainty: Figure = Field(
        description="Standard deviation of ln(actual / predicted) once the length of the answer is known."
    )


class AnswerLength(Resource):
    """How long the model's answers are, on all nodes together, to tasks that do not announce it."""

    median_tokens: Figure = Field(description="Tokens of the answer to a prompt of usual length.")
    relative_spread: Figure = Field(description="Standard deviation of ln(actual / median).")


class ModelProfile(Resource):
    """What has been learned of one model on the node."""

    model: ModelName = Field(description="Name of the model.")
    count: int = Field(default=0, ge=0, description="Number of outcomes learned from.")
    mean_reward: float | None = Field(
        default=None, allow_inf_nan=False, description="Mean reward, for policies that keep one."
    )
    mean_latency_seconds: Seconds | None = Field(default=None, description="Mean seconds from creation to completion.")
    mean_energy_joules: Joules | None = Field(default=None, description="Mean joules of a task.")
    deadline_met_share: float | None = Field(
        default=None, ge=0, le=1, description="Share of the tasks that were complete by their deadline."
    )
    last_outcome_time: AwareDatetime | None = Field(default=None, description="When the last outcome was learned.")
    latency: LatencyLaw | None = Field(default=None, description="Seconds of a task.")
    energy: EnergyLaw | None = Field(default=None, description="Joules of a task.")
    answers: AnswerLength | None = Field(default=None, description="Length of answers.")
    state: _State | None = Field(default=None, description=_OLD)


class CircuitState(StrEnum):
    """Whether a node is given tasks."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitStatus(Resource):
    """Whether the node is given tasks, after the last ones were refused or failed there."""

    state: CircuitState = Field(
        description="closed: it is given tasks; open: none for a while; half-open: one at a time, to try it."
    )
    reason: Annotated[str, Field(max_length=1024)] = Field(default="", description="What went wrong there last.")
    since: AwareDatetime = Field(description="When it was last opened or closed.")
    models: tuple[ModelName, ...] = Field(
        default=(),
        description="Models whose tasks are kept off; those of all models when empty.",
        json_schema_extra=_ATOMIC,
    )
    namespaces: tuple[Text, ...] = Field(
        default=(), description="Namespaces whose tasks are kept off; all when empty.", json_schema_extra=_ATOMIC
    )


class NodeProfileStatus(Resource):
    """What has been learned on the node. Written by PerLLM only."""

    schema_version: int = Field(default=1, ge=1, description="Version of the form of all state in here.")
    policy: Text | None = Field(default=None, description="The policy that learned.")
    gpu_type: Text | None = Field(default=None, description="The node's GPU type.")
    tier: Tier | None = Field(default=None, description="The node's tier.")
    updated_time: AwareDatetime | None = Field(default=None, description="When this was written.")
    outcomes: int = Field(default=0, ge=0, description="Number of outcomes learned from, all models together.")
    forgotten_models: int = Field(
        default=0,
        ge=0,
        description="How many models were forgotten here, those with the oldest outcomes, since there were too many.",
    )
    mean_latency_seconds: Seconds | None = Field(
        default=None, description="Mean seconds from creation to completion, all models."
    )
    mean_energy_joules: Joules | None = Field(default=None, description="Mean joules of a task, all models.")
    idle_power_watts: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Watts of the idle node."
    )
    circuit: CircuitStatus | None = Field(default=None, description="Whether the node is given tasks.")
    models: tuple[ModelProfile, ...] = Field(
        default=(),
        max_length=MAX_MODELS,
        description="What has been learned, per model, for people. Changes of it have no effect.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["model"]},
    )
    state: _State = Field(
        default_factory=dict,
        description="The learner's own state in the field data: compressed, read back as a whole or not at all. "
        "Not for people.",
    )
    recent: tuple[Annotated[str, Field(max_length=64)], ...] | None = Field(
        default=None,
        max_length=MAX_RECENT,
        description=_OLD,
        json_schema_extra=_ATOMIC,
    )
