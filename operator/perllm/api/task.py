"""The ``LLMInferenceTask``: a bounded unit of LLM work that runs on one node.

A served task states its prompt, and runs as a request to a model server that is up already. A pod task has a template.
"""

from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from perllm.api.base import Deadline, InputBytes, ModelName, Tokens, Ttl
from perllm.api.prompt import (
    MAX_MESSAGES,
    MAX_PROMPT_LENGTH,
    MAX_PROMPTS,
    Characters,
    ChatMessage,
    ChatRole,
    Generation,
    estimate_tokens,
)
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


class WhenToRun(StrEnum):
    """When a task runs, if there is time."""

    SOONEST = "Soonest"
    CHEAPEST = "Cheapest"


def _check_unique(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    if len(set(tiers)) < len(tiers):
        raise ValueError("each tier may be named only once")
    return tiers


class TaskSpec(Generation):
    """What the task is, and when it has to be complete."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName = Field(
        description="Name of the model, for example meta-llama/Llama-3.1-8B. Times and energies are learned per model "
        "and node."
    )
    prompt: Characters | None = Field(
        default=None,
        description="The prompt. Exactly one of prompt, messages, prompts and template is given. Anyone who can read "
        "the task can read the prompt and the answer.",
    )
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        default=None,
        description="The prompt as a conversation.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    prompts: Annotated[tuple[Characters, ...], Field(min_length=1, max_length=MAX_PROMPTS)] | None = Field(
        default=None,
        description="Several prompts, which are asked one after the other on the same node. The answers are in an "
        "LLMTaskAnswer.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    system: Characters | None = Field(default=None, description="System message that goes before every prompt.")
    prompt_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        default=None,
        description="Number of tokens in the prompt, or in all prompts of a batch. Required with a template; without "
        "one it is estimated from the text if absent.",
    )
    output_tokens: Annotated[Tokens, Field(ge=1)] | None = Field(
        default=None,
        description="Expected number of generated tokens, of all answers together. If absent, the length learned for "
        "the model is used.",
    )
    service: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        default=None,
        description="Name of the service, or of the kind of request, that the task belongs to, within its namespace. "
        "Lengths of answers are learned per service. If absent, tasks with the same system message and maxTokens are "
        "taken for a service, or else all tasks of the namespace.",
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
    when_to_run: WhenToRun = Field(
        default=WhenToRun.SOONEST,
        description="When the task runs, if there is time: Soonest, or Cheapest: it may wait for an hour in which "
        "energy is expected to cost less by PerLLM's configuration (costs), as far as minHitChance permits.",
    )
    min_hit_chance: Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False)] = Field(
        default=0.95,
        description="With whenToRun Cheapest: the chance to be in time that is to be left when the wait ends.",
    )
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = Field(
        default=0,
        description="How many times a failed attempt is repeated; of several prompts, only those that failed. Pods "
        "that a node refused, requests that a model server did not accept, and what was lost with its node, do not "
        "count.",
    )
    ttl_after_finished: Ttl | None = Field(
        default=None,
        description="How long the task is kept after it has finished, for example 1h. If absent, as long as the "
        "operator's configuration says, by default 24h.",
    )
    suspend: bool = Field(
        default=False,
        description="Whether the task waits without running; if it runs, it is stopped, and begins again once this is "
        "false. Of a task in a queue of Kueue, Kueue decides instead.",
    )
    template: Annotated[dict[str, Any], AfterValidator(check_template), WithJsonSchema({"type": "object"})] | None = (
        Field(default=None, description="The pod that does the work, as a PodTemplateSpec.")
    )

    @model_validator(mode="after")
    def _check_work(self) -> "TaskSpec":
        """Raise unless the work is given in exactly one way, with what belongs to it."""
        given = [one for one in (self.prompt, self.messages, self.prompts, self.template) if one is not None]
        if len(given) != 1:
            raise ValueError("exactly one of prompt, messages, prompts and template must be given")
        if self.template is not None and self.prompt_tokens is None:
            raise ValueError("promptTokens is required with a template")
        if self.template is not None and (self.system is not None or self.to_generation().to_body()):
            raise ValueError("sampling parameters and system belong to prompts and messages, not to a template")
        if self._stated_length > MAX_PROMPT_LENGTH:
            raise ValueError(f"prompts and messages together may have at most {MAX_PROMPT_LENGTH} characters")
        return self

    @property
    def _stated_length(self) -> int:
        """Characters as they are stated: a system message counts once, however many prompts it goes before."""
        contents = (message.content for message in self.messages or ())
        return sum(map(len, (self.system or "", self.prompt or "", *(self.prompts or ()), *contents)))

    @property
    def is_served(self) -> bool:
        """Whether it runs as a request to a model server, not as a pod."""
        return self.template is None

    @cached_property
    def service_name(self) -> str:
        """The service that the task names, or one made of its system message and its limit; empty without any."""
        if self.service is not None:
            return self.service
        first = self.conversations[0][0] if self.conversations else None
        system = first.content if first is not None and first.role is ChatRole.SYSTEM else ""
        if not system and self.max_tokens is None:
            return ""
        return f"{sha256(system.encode()).hexdigest()[:12]}-{self.max_tokens or 'any'}"

    @cached_property
    def conversations(self) -> tuple[tuple[ChatMessage, ...], ...]:
        """The messages that are sent to the model server for each prompt; none for a pod task."""
        before = () if self.system is None else (ChatMessage(role=ChatRole.SYSTEM, content=self.system),)
        if self.messages is not None:
            return ((*before, *self.messages),)
        prompts = self.prompts or (() if self.prompt is None else (self.prompt,))
        return tuple((*before, ChatMessage(role=ChatRole.USER, content=prompt)) for prompt in prompts)

    @cached_property
    def prompt_characters(self) -> int:
        """Number of characters in all prompts; 0 for a pod task."""
        return sum(len(message.content) for message in chain(*self.conversations))

    def expect_prompt_tokens(self, per_character: float) -> int:
        """Return the number of tokens in all prompts, estimated if the task does not state it."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return estimate_tokens(self.prompt_characters, per_character)

    def to_generation(self) -> Generation:
        """Return how the answer is generated."""
        return Generation(**{name: getattr(self, name) for name in Generation.model_fields})

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
        """The size of the payload in bytes; at least that of the prompts."""
        text_bytes = sum(len(message.content.encode()) for message in chain(*self.conversations))
        return max(parse_quantity(self.input_bytes), text_bytes)

    @cached_property
    def allowed_tiers(self) -> frozenset[Tier]:
        """The tiers on which the task may run."""
        return frozenset(self.tiers or Tier)
