"""The status of an ``LLMInferenceTask``: where it runs and why, and what was observed of it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from perllm.api.base import Figure, Joules, Message, Resource, Seconds, Share, Text, Tokens
from perllm.api.report import MAX_REPORT_LENGTH, TokenSource
from perllm.api.task import Tier

MAX_FAILED_ATTEMPTS = 64


class TaskPhase(StrEnum):
    """Where a task is in its life."""

    PENDING = "Pending"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REJECTED = "Rejected"

    @property
    def is_final(self) -> bool:
        """Whether a task in this phase never leaves it."""
        return self in (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.REJECTED)


class EnergyQuality(StrEnum):
    """How good a measured energy is."""

    MEASURED = "measured"
    COARSE = "coarse"
    MISSING = "missing"


class ConditionType(StrEnum):
    """The conditions of a task."""

    ACCEPTED = "Accepted"
    SCHEDULED = "Scheduled"
    COMPLETED = "Completed"
    FINISHED = "Finished"
    DEADLINE_MET = "DeadlineMet"
    METRICS_AVAILABLE = "MetricsAvailable"


class DecisionStatus(Resource):
    """Why the task runs where it runs."""

    policy: Text = Field(description="Name of the policy that decided.")
    predicted_latency: Seconds | None = Field(default=None, description="Expected seconds from creation to completion.")
    predicted_latency_low: Seconds | None = Field(
        default=None, description="Seconds from creation to completion that one in twenty such tasks stays below."
    )
    predicted_latency_high: Seconds | None = Field(
        default=None, description="Seconds from creation to completion that one in twenty such tasks exceeds."
    )
    hit_chance: Share | None = Field(default=None, description="Chance to be in time, when it was placed.")
    harm: Figure | None = Field(
        default=None, description="Tasks running there that were expected to miss their deadline because of this one."
    )
    expected_output_tokens: Figure | None = Field(
        default=None, description="Tokens that the answer was expected to have."
    )
    predicted_energy: Joules | None = Field(default=None, description="Expected joules.")
    score: float | None = Field(
        default=None, allow_inf_nan=False, description="The policy's score of the chosen node; higher is better."
    )
    explored: bool = Field(
        default=False, description="Whether the node was chosen to learn rather than as the best known."
    )
    candidates: int = Field(default=0, ge=0, description="Number of nodes that passed all constraints.")
    rejected: dict[Text, int] = Field(default_factory=dict, description="Number of nodes that did not pass, by reason.")
    metrics_age: Seconds | None = Field(
        default=None, description="Age of the chosen node's metrics in seconds; absent when there were none."
    )


class Observation(Resource):
    """What was observed of the finished task."""

    queue: Seconds | None = Field(default=None, description="Seconds from creation until the pod started.")
    transfer: Seconds | None = Field(default=None, description="Seconds until the payload had reached the node.")
    inference: Seconds | None = Field(default=None, description="Seconds of inference.")
    time_to_first_token: Seconds | None = Field(
        default=None, description="Seconds from the request to the first token; the mean of several prompts."
    )
    latency: Seconds | None = Field(default=None, description="Seconds from creation to completion.")
    energy_joules: Joules | None = Field(
        default=None, description="Joules the task took on its node; absent when not measured."
    )
    energy_quality: EnergyQuality | None = Field(
        default=None,
        description="measured: many samples in the inference window; coarse: few; missing: not known; absent while the "
        "samples after the end of the run are awaited.",
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Tokens of the prompts.")
    tokens: Tokens | None = Field(default=None, description="Tokens generated.")
    token_source: TokenSource | None = Field(
        default=None,
        description="usage: told by the model server; chunks: pieces of its stream, which may hold several tokens.",
    )


class Result(Resource):
    """What came of the task, as far as its pod reported it."""

    text: Annotated[str, Field(max_length=MAX_REPORT_LENGTH)] | None = Field(
        default=None, description="The answer, or the beginning of it."
    )
    truncated: bool | None = Field(default=None, description="Whether the text was cut to fit.")
    location: Text | None = Field(
        default=None, description="Where all of it is, for example configmap/answers or file:/output/answers.jsonl."
    )


class Condition(Resource):
    """One aspect of the current state, as in metav1.Condition."""

    type: Annotated[str, Field(max_length=316)] = Field(
        description="Accepted, Scheduled, Completed, Finished, DeadlineMet or MetricsAvailable."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="The generation this condition was set for."
    )
    last_transition_time: AwareDatetime = Field(description="When the status last changed.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="The cause in one word.")
    message: Annotated[str, Field(max_length=32768)] = Field(default="", description="The cause in a sentence.")


class TaskStatus(Resource):
    """What became of the task. Written by PerLLM only."""

    observed_generation: int | None = Field(default=None, ge=0, description="The generation this status is about.")
    phase: TaskPhase = Field(
        default=TaskPhase.PENDING, description="Pending, Scheduled, Running, Succeeded, Failed or Rejected."
    )
    message: Message | None = Field(default=None, description="The current state in a sentence.")
    received_time: AwareDatetime | None = Field(
        default=None,
        description="When PerLLM first saw the task, to the microsecond; the creation time has whole seconds only.",
    )
    pod_name: Text | None = Field(default=None, description="The pod of the current attempt.")
    node_name: Text | None = Field(default=None, description="The node it runs on.")
    tier: Tier | None = Field(default=None, description="The node's tier.")
    gpu_type: Text | None = Field(default=None, description="The node's GPU type.")
    attempts: int = Field(default=0, ge=0, description="Number of pods created for the task.")
    failed_attempts: Annotated[tuple[int, ...], Field(max_length=MAX_FAILED_ATTEMPTS)] | None = Field(
        default=None, description="Attempts that failed by themselves; more of them than spec.retries end the task."
    )
    start_time: AwareDatetime | None = Field(default=None, description="When the pod of the current attempt started.")
    completion_time: AwareDatetime | None = Field(default=None, description="When the task finished.")
    decision: DecisionStatus | None = Field(default=None, description="Why the task runs where it runs.")
    observed: Observation | None = Field(default=None, description="What was observed of the finished task.")
    result: Result | None = Field(default=None, description="What came of the task, as far as its pod reported it.")
    deadline_met: bool | None = Field(default=None, description="Whether the task was complete by its deadline.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="The conditions of the task, one per type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
