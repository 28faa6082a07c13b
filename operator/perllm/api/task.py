"""The ``LLMInferenceTask``: a bounded unit of LLM work that runs as one pod on one node."""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from perllm.api.base import Deadline, InputBytes, Resource, Tokens, Ttl
from perllm.api.quantities import parse_duration_s, parse_quantity
from perllm.api.template import check_template

MAX_PRIORITY = 1000
MAX_RETRIES = 10


class Tier(StrEnum):
    """The two kinds of nodes."""

    EDGE = "edge"
    CLOUD = "cloud"


class OnInfeasible(StrEnum):
    """What to do with a task whose deadline no node is expected to meet."""

    BEST_EFFORT = "BestEffort"
    REJECT = "Reject"


class OnDeadlineMissed(StrEnum):
    """What to do with a task whose deadline has passed."""

    CONTINUE = "Continue"
    TERMINATE = "Terminate"


def _check_unique(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    if len(set(tiers)) < len(tiers):
        raise ValueError("each tier may be named only once")
    return tiers


class TaskSpec(Resource):
    """What the task is, and when it has to be complete."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")] = Field(
        description="Name of the model, for example meta-llama/Llama-3.1-8B. Times and energies are learned per model "
        "and node."
    )
    prompt_tokens: Annotated[Tokens, Field(ge=1)] = Field(
        description="Number of tokens in the prompt, or in all prompts of a batch."
    )
    output_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        default=None,
        description="Expected number of generated tokens. If absent, the length learned for the model is used.",
    )
    input_bytes: InputBytes = Field(
        default=0,
        description="Size of the payload that must reach the node before inference, as a quantity such as 2Mi.",
    )
    deadline: Deadline = Field(
        description="Time allowed from the creation of the task to its completion, for example 30s or 1m30s; at most "
        "24h.",
    )
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = Field(
        default=0, description="Tasks of higher priority are placed first when capacity is scarce."
    )
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=2), AfterValidator(_check_unique)] | None = Field(
        default=None,
        description="Tiers on which the task may run: edge, cloud or both. Both if absent.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    on_infeasible: OnInfeasible = Field(
        default=OnInfeasible.BEST_EFFORT,
        description="What to do when no node is expected to meet the deadline: BestEffort runs the task where it is "
        "expected to be least late, Reject ends it without running it. A node is expected to meet the deadline if the "
        "chance is at least admission.min_hit_chance in PerLLM's configuration, 50 % by default. While all tasks of a "
        "model are rejected, one in twenty borderline ones still runs, to test predictions (admission.probe_share).",
    )
    on_deadline_missed: OnDeadlineMissed = Field(
        default=OnDeadlineMissed.CONTINUE,
        description="What to do when the deadline passes before completion: Continue lets the task keep running, "
        "Terminate ends it.",
    )
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = Field(
        default=0,
        description="How many times a failed pod is replaced by a new one. Pods that a node refused, or that were lost "
        "with their node, do not count.",
    )
    ttl_after_finished: Ttl | None = Field(
        default=None,
        description="How long the task is kept after it has finished, for example 1h. If absent, as long as the "
        "operator's configuration says, by default 24h.",
    )
    template: Annotated[dict[str, Any], AfterValidator(check_template), WithJsonSchema({"type": "object"})] = Field(
        description="The pod that does the work, as a PodTemplateSpec."
    )

    @cached_property
    def deadline_s(self) -> float:
        """The deadline in seconds from creation."""
        return parse_duration_s(self.deadline)

    @cached_property
    def ttl_after_finished_s(self) -> float | None:
        """How long a finished task is kept, in seconds; None if the task does not say it."""
        return None if self.ttl_after_finished is None else parse_duration_s(self.ttl_after_finished)

    @cached_property
    def input_size_bytes(self) -> int:
        """The size of the payload in bytes."""
        return parse_quantity(self.input_bytes)

    @cached_property
    def allowed_tiers(self) -> frozenset[Tier]:
        """The tiers on which the task may run."""
        return frozenset(self.tiers or Tier)
