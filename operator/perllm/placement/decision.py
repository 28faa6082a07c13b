"""A decision, and the record of it that travels in the Binding onto the pod."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import orjson
from pydantic import TypeAdapter, ValidationError

from perllm.api.task import Tier
from perllm.api.task_status import Decision as DecisionStatus


class RecordError(ValueError):
    """A decision record could not be read."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen arm with everything that explains it; this is also the form of the record.

    Attributes:
        task_id: uid of the task.
        policy: name of the policy.
        model: model of the arm.
        node: node of the arm.
        tier: the node's tier.
        gpu_type: the node's GPU type.
        decided_s: Unix time of the decision.
        latency_s: predicted, from the decision to completion.
        latency_bound_s: that plus one standard deviation.
        energy_j: predicted, transmission and inference.
        transmission_energy_j: the transmission's part.
        time_left_s: time to the deadline when decided.
        demand_bps: uplink that the task needs to bring its input there in time.
        occupancy: tasks on the node, this one included.
        output_tokens: expected length of the answer.
        score: the policy's score of the arm.
        slack: smallest normalised slack f(y).
        resource_slack: the compute and bandwidth part of it.
        meets_deadline: whether all constraints are predicted to hold.
        explored: whether the arm was chosen to learn about it.
        candidates: number of arms that satisfied every constraint.
        rejected: number of arms refused, by reason.
        metrics_age_s: age of the node's metrics; None when there were none.
        reason: one sentence for people.
    """

    task_id: str
    policy: str
    model: str
    node: str
    tier: Tier
    gpu_type: str
    decided_s: float
    latency_s: float
    latency_bound_s: float
    energy_j: float
    transmission_energy_j: float
    time_left_s: float
    demand_bps: float
    occupancy: float
    output_tokens: float
    score: float | None
    slack: float
    resource_slack: float
    meets_deadline: bool
    explored: bool
    candidates: int
    rejected: Mapping[str, int]
    metrics_age_s: float | None
    reason: str

    def to_record(self) -> str:
        """Return the decision as one compact line of JSON."""
        return orjson.dumps({name: _rounded(getattr(self, name)) for name in _FIELDS}).decode()

    def to_status(self, created_s: float) -> DecisionStatus:
        """Return the part of the decision that the task's status shows; times count from the task's creation."""
        before_s = self.decided_s - created_s
        return DecisionStatus(
            policy=self.policy,
            predicted_latency=before_s + self.latency_s,
            deadline_bound=before_s + self.latency_bound_s,
            predicted_energy=self.energy_j,
            score=self.score,
            explored=self.explored,
            candidates=self.candidates,
            rejected=dict(self.rejected),
            metrics_age=self.metrics_age_s,
        )


_FIELDS = tuple(field.name for field in fields(Decision))
_RECORD = TypeAdapter(Decision)


def read_record(text: str) -> Decision:
    """Return the decision in a record.

    Raises:
        RecordError: the text is not a record of this version.
    """
    try:
        return _RECORD.validate_python(orjson.loads(text))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise RecordError(f"unreadable decision record: {error}") from error


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    return dict(value) if isinstance(value, Mapping) else value
