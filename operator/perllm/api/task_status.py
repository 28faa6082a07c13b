"""The status of an ``LLMInferenceTask``: where it runs and why, and what was observed."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field

from perllm.api.base import Amount, Figure, Joules, Message, Resource, Seconds, Share, Text, Tokens
from perllm.api.report import RunReport, TokenSource
from perllm.api.served_run import ServedRun
from perllm.api.task import Tier

MAX_FAILED_ATTEMPTS = 64
MAX_ANSWER_LENGTH = 65_536
"""Characters of an answer that the status holds."""

MAX_RECORD_LENGTH = 8192
MAX_ALTERNATIVES_SHOWN = 8


class TaskPhase(StrEnum):
    """Where a task is in its life cycle."""

    PENDING = "Pending"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REJECTED = "Rejected"

    @property
    def is_final(self) -> bool:
        """Whether a task never leaves this phase."""
        return self in (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.REJECTED)


class RunsAs(StrEnum):
    """What carries out an attempt at a task."""

    POD = "pod"
    REQUEST = "request"


class EnergyQuality(StrEnum):
    """How accurate a measured energy is."""

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


class CounterfactualStatus(Resource):
    """Where the plain kube-scheduler would have run the task, and what was expected of it there."""

    node: Text = Field(description="The node.")
    predicted_latency: Seconds | None = Field(default=None, description="Expected seconds from creation to completion.")
    predicted_energy: Joules | None = Field(default=None, description="Expected joules.")
    hit_chance: Share | None = Field(default=None, description="Chance to be in time.")


class AlternativeStatus(Resource):
    """Another node that the task could have gone to, and what was expected of it there."""

    node: Text = Field(description="The node.")
    gpu_type: Text | None = Field(default=None, description="The node's GPU type.")
    predicted_latency: Seconds | None = Field(default=None, description="Expected seconds from creation to completion.")
    predicted_energy: Joules | None = Field(default=None, description="Expected joules.")
    hit_chance: Share | None = Field(default=None, description="Chance to be in time.")
    has_room: bool | None = Field(default=None, description="Whether the task could have started there at once.")
    score: float | None = Field(
        default=None, allow_inf_nan=False, description="The policy's score of the node; higher is better."
    )
    lost_by: Text | None = Field(
        default=None,
        description="By which part of the score it was worse than the chosen node: chance, harm, rent or energy.",
    )


class DecisionStatus(Resource):
    """Where the task runs, and why."""

    policy: Text = Field(description="Name of the policy that made the decision.")
    waited: Seconds | None = Field(default=None, description="Seconds from creation to the decision.")
    waited_for: Message | None = Field(
        default=None, description="What the task waited for last; absent if it was placed at once."
    )
    predicted_latency: Seconds | None = Field(default=None, description="Expected seconds from creation to completion.")
    predicted_latency_low: Seconds | None = Field(
        default=None, description="Seconds from creation to completion; one in twenty such tasks takes less."
    )
    predicted_latency_high: Seconds | None = Field(
        default=None, description="Seconds from creation to completion; one in twenty such tasks takes more."
    )
    hit_chance: Share | None = Field(default=None, description="Chance to be in time, as of the placement.")
    harm: Figure | None = Field(
        default=None, description="Expected number of tasks on the node that miss their deadline because of this one."
    )
    expected_output_tokens: Figure | None = Field(default=None, description="Expected number of generated tokens.")
    predicted_energy: Joules | None = Field(default=None, description="Expected joules.")
    score: float | None = Field(
        default=None, allow_inf_nan=False, description="The policy's score of the chosen node; higher is better."
    )
    explored: bool = Field(
        default=False, description="Whether the node was chosen to learn about it, not because it was the best known."
    )
    candidates: int = Field(default=0, ge=0, description="Number of nodes that the policy could choose from.")
    rejected: dict[Text, int] = Field(default_factory=dict, description="Number of excluded nodes, by reason.")
    metrics_age: Seconds | None = Field(
        default=None, description="Age of the chosen node's metrics in seconds; absent if there were none."
    )
    counterfactual: CounterfactualStatus | None = Field(
        default=None,
        description="Where the plain kube-scheduler would have run the task; absent if it would not have placed it.",
    )
    alternatives: tuple[AlternativeStatus, ...] = Field(
        default=(),
        max_length=MAX_ALTERNATIVES_SHOWN,
        description="The best other nodes, at most one of a GPU type, the best first.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Observation(Resource):
    """What was observed when the task ran."""

    queue: Seconds | None = Field(default=None, description="Seconds from creation until the pod started.")
    transfer: Seconds | None = Field(default=None, description="Seconds to move the payload to the node.")
    inference: Seconds | None = Field(default=None, description="Seconds of inference.")
    time_to_first_token: Seconds | None = Field(
        default=None, description="Seconds from the request to the first token; the mean over all prompts."
    )
    latency: Seconds | None = Field(default=None, description="Seconds from creation to completion.")
    energy_joules: Joules | None = Field(
        default=None, description="Joules that the task used on its node; absent if not measured."
    )
    transmission_joules: Joules | None = Field(
        default=None, description="The part of them in which the payload was moved to the node, as estimated."
    )
    inference_joules: Joules | None = Field(
        default=None, description="The part of them that the node drew beyond its idle power."
    )
    idle_joules: Joules | None = Field(
        default=None, description="The part of them that is the task's share of the idle power of the node."
    )
    money: Amount | None = Field(
        default=None, description="What the joules cost in money, if a tariff is configured (costs.money)."
    )
    carbon_grams: Amount | None = Field(
        default=None, description="Grams of CO2 of the joules, if a tariff is configured (costs.carbon)."
    )
    energy_quality: EnergyQuality | None = Field(
        default=None,
        description="measured: many samples during inference; coarse: few; missing: unknown. Absent while PerLLM waits "
        "for samples that cover the end of the run.",
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Number of prompt tokens.")
    tokens: Tokens | None = Field(default=None, description="Number of generated tokens.")
    token_source: TokenSource | None = Field(
        default=None,
        description="usage: reported by the model server; chunks: pieces of its stream, which may hold several tokens.",
    )

    @classmethod
    def of_report(cls, report: RunReport | None, *, queue: float | None = None, latency: float | None = None) -> Self:
        """Return what a run has reported about itself, with the seconds that were observed of it."""
        said = report or RunReport()
        return cls(
            queue=queue,
            transfer=said.transfer_seconds,
            inference=said.inference_seconds,
            time_to_first_token=said.time_to_first_token_seconds,
            latency=latency,
            prompt_tokens=said.prompt_tokens,
            tokens=said.output_tokens,
            token_source=said.token_source,
        )


class Result(Resource):
    """The result of the task, as far as its pod or the agent reported it."""

    text: Annotated[str, Field(max_length=MAX_ANSWER_LENGTH)] | None = Field(
        default=None, description="The answer, or its beginning."
    )
    truncated: bool | None = Field(default=None, description="Whether the text was truncated to fit.")
    location: Text | None = Field(
        default=None, description="Where the full answer is, for example configmap:answers or file:/output/a.jsonl."
    )
    answer_name: Text | None = Field(
        default=None,
        description="Name of the LLMTaskAnswer with the full answer, or with those to several prompts.",
    )


class Condition(Resource):
    """One aspect of the current state, as in metav1.Condition."""

    type: Annotated[str, Field(max_length=316)] = Field(
        description="Accepted, Scheduled, Completed, Finished, DeadlineMet or MetricsAvailable."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="The generation that this condition is based on."
    )
    last_transition_time: AwareDatetime = Field(description="When the status last changed.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="The cause as one word.")
    message: Annotated[str, Field(max_length=32768)] = Field(default="", description="The cause as a sentence.")


class TaskStatus(Resource):
    """State and outcome of the task. Written only by PerLLM."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="The generation that this status is based on."
    )
    phase: TaskPhase = Field(
        default=TaskPhase.PENDING, description="Pending, Scheduled, Running, Succeeded, Failed or Rejected."
    )
    message: Message | None = Field(default=None, description="The current state as a sentence.")
    received_time: AwareDatetime | None = Field(
        default=None,
        description="When PerLLM first saw the task, to the microsecond; the creation time is in whole seconds.",
    )
    pod_name: Text | None = Field(
        default=None, description="Name of the current attempt, and of its pod unless it runs on a model server."
    )
    node_name: Text | None = Field(default=None, description="The node it runs on.")
    tier: Tier | None = Field(default=None, description="The node's tier.")
    gpu_type: Text | None = Field(default=None, description="The node's GPU type.")
    runs_as: RunsAs | None = Field(
        default=None,
        description="pod: it runs as a pod, made from its template or, for a prompt, by PerLLM; request: as a request "
        "to a model server of the node.",
    )
    attempts: int = Field(
        default=0,
        ge=0,
        description="Number of pods created, or requests made, for the task. A pod that is replaced because it fits on "
        "none of the nodes it names does not count.",
    )
    failed_attempts: Annotated[tuple[int, ...], Field(max_length=MAX_FAILED_ATTEMPTS)] | None = Field(
        default=None, description="Attempts whose own pod failed; more of them than spec.retries end the task."
    )
    stopped_attempts: Annotated[tuple[int, ...], Field(max_length=MAX_FAILED_ATTEMPTS)] | None = Field(
        default=None,
        description="Attempts that were stopped because the task was suspended or lost its quota; they count against "
        "nothing.",
    )
    start_time: AwareDatetime | None = Field(default=None, description="When the pod of the current attempt started.")
    completion_time: AwareDatetime | None = Field(default=None, description="When the task finished.")
    decision: DecisionStatus | None = Field(default=None, description="Where the task runs, and why.")
    observed: Observation | None = Field(default=None, description="What was observed when the task ran.")
    run: ServedRun | None = Field(
        default=None, description="What the node's agent reported about the request. Written only by the agent."
    )
    result: Result | None = Field(default=None, description="The result of the task, as far as it was reported.")
    decision_record: Annotated[str, Field(max_length=MAX_RECORD_LENGTH)] | None = Field(
        default=None, description="The decision in full, for PerLLM itself, if the task runs on a model server."
    )
    deadline_met: bool | None = Field(default=None, description="Whether the task completed by its deadline.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="The conditions of the task, one per type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
