"""A decision, and the record of it that travels in the Binding onto the pod."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite

import orjson
from pydantic import TypeAdapter, ValidationError

from perllm.api.task import Tier
from perllm.api.task_status import DecisionStatus
from perllm.text import clean_line, cut

MAX_RECORD = 8192
"""Characters of a record; those that PerLLM writes have at most half of them."""

MAX_NAME = 253
MAX_REASON = 500
MAX_REJECTED = 16
MAX_REJECTED_NAME = 63

MAX_FIGURE = 1e15
"""No figure of a decision is larger: with more, sums and times made from it would not be finite."""


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
        latency_s: predicted, from the decision to completion, at the expected length.
        latency_low_s: 5 % quantile of it, the length of the answer being unknown.
        latency_high_s: 95 % quantile of it.
        hit_chance: chance to be in time.
        harm: tasks running there that are expected to miss their deadline because of this one.
        energy_j: predicted, transmission and inference.
        transmission_energy_j: the transmission's part.
        time_left_s: time to the deadline when decided.
        demand_bps: uplink that the task needs to bring its input there in time.
        occupancy: tasks on the node, this one included.
        prompt_tokens: tokens to read.
        hint_tokens: length that the task announced.
        output_tokens: expected length of the answer.
        length_centre: median of the logarithm of the length, as learned.
        length_spread: spread around it.
        input_bits: size of the input.
        gpus: GPUs of the node.
        fixed_s: seconds to the first token, waiting and transfer included.
        transfer_s: the transfer's part.
        reading_s: the part in which its own prompt is read.
        work_s: GPU seconds that it takes of a full node.
        token_s: seconds per token.
        solo_token_s: seconds per token, were it alone.
        contention_s: seconds per token that each further task adds.
        fixed_j: joules that do not depend on the answer.
        token_j: joules per token.
        cold: share of the time to load the model that was still to come.
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
    latency_low_s: float
    latency_high_s: float
    hit_chance: float
    harm: float
    energy_j: float
    transmission_energy_j: float
    time_left_s: float
    demand_bps: float
    occupancy: float
    prompt_tokens: float
    hint_tokens: float | None
    output_tokens: float
    length_centre: float
    length_spread: float
    input_bits: float
    gpus: float
    fixed_s: float
    transfer_s: float
    reading_s: float
    work_s: float
    token_s: float
    solo_token_s: float
    contention_s: float
    fixed_j: float
    token_j: float
    cold: float
    score: float | None
    slack: float
    resource_slack: float
    meets_deadline: bool
    explored: bool
    candidates: int
    rejected: Mapping[str, int]
    metrics_age_s: float | None
    reason: str

    def given_latency_s(self, output_tokens: float) -> float:
        """Return the seconds that would have been predicted, had the length been known."""
        return self.fixed_s + output_tokens * self.token_s

    def given_energy_j(self, output_tokens: float) -> float:
        """Return the joules that would have been predicted, had the length been known."""
        return self.fixed_j + output_tokens * self.token_j

    def to_record(self) -> str:
        """Return the decision as one compact line of JSON of at most `MAX_RECORD` characters."""
        return orjson.dumps(
            {_KEYS.get(name, name): _bounded(getattr(self, name), _LENGTHS.get(name, MAX_NAME)) for name in _FIELDS}
        ).decode()

    def to_status(self, created_s: float) -> DecisionStatus:
        """Return the part of the decision that the task's status shows; times count from the task's creation."""
        before_s = self.decided_s - created_s
        return DecisionStatus(
            policy=self.policy,
            predicted_latency=before_s + self.latency_s,
            predicted_latency_low=before_s + self.latency_low_s,
            predicted_latency_high=before_s + self.latency_high_s,
            hit_chance=min(max(self.hit_chance, 0.0), 1.0),
            harm=max(self.harm, 0.0),
            expected_output_tokens=self.output_tokens,
            predicted_energy=self.energy_j,
            score=self.score,
            explored=self.explored,
            candidates=self.candidates,
            rejected=dict(self.rejected),
            metrics_age=self.metrics_age_s,
        )


_EXACT = 1e5
"""Smaller numbers keep six digits, larger ones, such as times, four decimals."""

_FIELDS = tuple(field.name for field in fields(Decision))
_LENGTHS = {"reason": MAX_REASON}
_RECORD = TypeAdapter(Decision)

_KEYS = {"solo_token_s": "alone_s", "contention_s": "crowd_s"}
"""Keys of the record that are not the field's name: pods in flight during an upgrade carry them."""


_POSITIVE = frozenset({"prompt_tokens", "hint_tokens", "output_tokens", "length_spread", "gpus", "solo_token_s"})
"""What follows divides by these or takes their logarithms."""

_ANY_SIGN = frozenset({"time_left_s", "length_centre", "score", "slack", "resource_slack", "hit_chance", "harm"})


def read_record(text: str) -> Decision:
    """Return the decision in a record.

    Raises:
        RecordError: the text is not a record of this version.
    """
    if len(text) > MAX_RECORD:
        raise RecordError(f"unreadable decision record: {len(text)} characters, more than {MAX_RECORD}")
    try:
        decision = _RECORD.validate_python(_name_fields(orjson.loads(text)))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise RecordError(f"unreadable decision record: {clean_line(error)}") from error
    wrong = [_KEYS.get(name, name) for name in _FIELDS if not _is_possible(name, getattr(decision, name))]
    if wrong:
        raise RecordError(f"unreadable decision record: impossible figures of {', '.join(wrong)}")
    return _clean(decision)


def _name_fields(record: object) -> object:
    """Return a record with the names of fields for its keys."""
    if not isinstance(record, dict):
        return record
    return {**record, **{name: record.get(key) for name, key in _KEYS.items()}}


def _clean(decision: Decision) -> Decision:
    """Return the decision with words that fit into a status; anybody may have written them."""
    return replace(
        decision,
        policy=clean_line(decision.policy, MAX_NAME),
        gpu_type=clean_line(decision.gpu_type, MAX_NAME),
        rejected={clean_line(name, MAX_REJECTED_NAME): count for name, count in decision.rejected.items()},
        reason=clean_line(decision.reason, MAX_REASON),
    )


def _bounded(value: object, length: int) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < _EXACT else round(value, 4)
    if isinstance(value, str):
        return cut(value, length)
    if isinstance(value, Mapping):
        return {cut(name, MAX_REJECTED_NAME): count for name, count in list(value.items())[:MAX_REJECTED]}
    return value


def _is_possible(name: str, value: object) -> bool:
    """Whether a number is finite, of a size that can be reckoned with, and of the sign that it must have."""
    if isinstance(value, Mapping):
        return all(_is_possible("", count) for count in value.values())
    if not isinstance(value, int | float):
        return True
    if not isfinite(value) or abs(value) > MAX_FIGURE:
        return False
    return value > 0 if name in _POSITIVE else value >= 0 or name in _ANY_SIGN
