"""A decision, and the record of it that travels in the Binding onto the pod."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from math import isfinite
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from perllm.api.task import Tier
from perllm.api.task_status import CounterfactualStatus, DecisionStatus
from perllm.placement.alternatives import MAX_ALTERNATIVES, Alternative
from perllm.placement.counterfactual import Prospect
from perllm.placement.forecast import ArmForecast, Inference, RunEnergy, RunTimes
from perllm.text import clean_line, cut

MAX_RECORD = 8192
"""Characters of a record; those that PerLLM writes have at most three quarters of them."""

MAX_NAME = 253
MAX_REASON = 500
MAX_REJECTED = 16
MAX_REJECTED_NAME = 63

MAX_FIGURE = 1e15
"""No figure of a decision is larger: with more, sums and times made from it would not be finite."""

MIN_DIVISOR = 1e-9
"""No figure that others are divided by is smaller, for the same reason."""


class RecordError(ValueError):
    """A decision record could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the policy made of an arm.

    Attributes:
        score: the policy's score of the arm; None where it is infinite.
        slack: smallest normalised slack f(y).
        resource_slack: the compute and bandwidth part of it.
        meets_deadline: whether all constraints are predicted to hold.
        explored: whether the arm was chosen to learn about it.
        candidates: number of arms that satisfied every constraint.
        excluded: number of arms excluded, by reason.
    """

    score: float | None
    slack: float
    resource_slack: float
    meets_deadline: bool
    explored: bool
    candidates: int
    excluded: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The chosen arm with everything that explains it.

    Attributes:
        task_id: uid of the task.
        policy: name of the policy.
        node: node of the arm.
        tier: the node's tier.
        gpu_type: the node's GPU type.
        decided_s: Unix time of the decision.
        metrics_age_s: age of the node's metrics; None when there were none.
        reason: one sentence for people.
        inference: what the task asks of its model.
        forecast: what is expected of it on the node.
        assessment: what the policy made of that.
        counterfactual: what was expected of it where the plain kube-scheduler would have put it; None if unknown.
        alternatives: the best other nodes.
    """

    task_id: str
    policy: str
    node: str
    tier: Tier
    gpu_type: str
    decided_s: float
    metrics_age_s: float | None
    reason: str
    inference: Inference
    forecast: ArmForecast
    assessment: Assessment
    counterfactual: Prospect | None = None
    alternatives: tuple[Alternative, ...] = ()

    def to_prospect(self) -> Prospect:
        """Return what was expected of the task on the chosen node."""
        return Prospect(node=self.node, gpu_type=self.gpu_type, at_s=self.decided_s, forecast=self.forecast)

    def to_record(self) -> str:
        """Return the decision as one compact line of JSON of at most `MAX_RECORD` characters.

        It is flat: the fields of all parts, by the keys of `_KEYS` or their own names. So are the counterfactual and
        each alternative in it.
        """
        return orjson.dumps(_to_plain(self)).decode()

    def to_status(self, created_s: float) -> DecisionStatus:
        """Return the part of the decision that the task's status shows; times count from the task's creation."""
        before_s, forecast, assessment = self.decided_s - created_s, self.forecast, self.assessment
        return DecisionStatus(
            policy=self.policy,
            waited=max(before_s, 0.0),
            predicted_latency=before_s + forecast.times.latency_s,
            predicted_latency_low=before_s + forecast.latency_low_s,
            predicted_latency_high=before_s + forecast.latency_high_s,
            hit_chance=min(max(forecast.hit_chance, 0.0), 1.0),
            harm=max(forecast.harm, 0.0),
            expected_output_tokens=self.inference.output_tokens,
            predicted_energy=forecast.energy.energy_j,
            score=assessment.score,
            explored=assessment.explored,
            candidates=assessment.candidates,
            rejected=dict(assessment.excluded),
            metrics_age=self.metrics_age_s,
            counterfactual=None if self.counterfactual is None else _to_status(self.counterfactual, created_s),
            alternatives=tuple(one.to_status(before_s) for one in self.alternatives),
        )


def _to_status(other: Prospect, created_s: float) -> CounterfactualStatus:
    forecast = other.forecast
    return CounterfactualStatus(
        node=other.node,
        predicted_latency=other.at_s - created_s + forecast.times.latency_s,
        predicted_energy=forecast.energy.energy_j,
        hit_chance=min(max(forecast.hit_chance, 0.0), 1.0),
    )


_PARTS = (Inference, ArmForecast, RunTimes, RunEnergy, Assessment)

_EXACT = 1e5
"""Smaller numbers keep six digits, larger ones, such as times, four decimals."""

_LENGTHS = {"reason": MAX_REASON, "lost_by": MAX_REJECTED_NAME}
_RECORD = TypeAdapter(Decision)

_KEYS = {"solo_token_s": "alone_s", "contention_s": "crowd_s", "excluded": "rejected"}
"""Keys of the record that are not the field's name: pods bound before an upgrade carry them."""

_POSITIVE = frozenset(
    {"prompt_tokens", "hint_tokens", "output_tokens", "length_spread", "gpus", "alone_s", "time_spread", "pace"}
)
"""What follows divides by these or takes their logarithms."""

_ANY_SIGN = frozenset({"time_left_s", "length_centre", "score", "slack", "resource_slack", "hit_chance", "harm"})


@lru_cache(maxsize=512)
def read_record(text: str) -> Decision:
    """Return the decision in a record; the latest ones are cached, since each is read several times.

    Raises:
        RecordError: the text is not a record of this version.
    """
    if len(text) > MAX_RECORD:
        raise RecordError(f"unreadable decision record: {len(text)} characters, more than {MAX_RECORD}")
    try:
        decision = _RECORD.validate_python(_nest(orjson.loads(text)))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise RecordError(f"unreadable decision record: {clean_line(error)}") from error
    wrong = _find_impossible(decision)
    if wrong:
        raise RecordError(f"unreadable decision record: impossible figures of {', '.join(wrong)}")
    return _clean(decision)


def _to_plain(part: Any) -> dict[str, object]:
    return {key: _to_plain_value(key, value) for key, value in _flatten(part).items()}


def _to_plain_value(key: str, value: object) -> object:
    if isinstance(value, tuple):
        return [_to_plain(one) for one in value]
    return _to_plain(value) if isinstance(value, Prospect) else _bounded(value, _LENGTHS.get(key, MAX_NAME))


def _find_impossible(part: Any) -> list[str]:
    """Return the names of the figures that cannot be true."""
    wrong = [key for key, value in _flatten(part).items() if not _is_possible(key, value)]
    inner = (part.counterfactual, *part.alternatives) if isinstance(part, Decision) else ()
    return wrong + [key for one in inner if one is not None for key in _find_impossible(one)]


def _flatten(part: Any) -> dict[str, Any]:
    """Return the fields of a decision and of its parts, by the keys of the record."""
    flat: dict[str, Any] = {}
    for name, key in _list_keys(part.__class__):
        value = getattr(part, name)
        if isinstance(value, _PARTS):
            flat |= _flatten(value)
        else:
            flat[key] = value
    return flat


@cache
def _list_keys(kind: Any) -> tuple[tuple[str, str], ...]:
    """Return the fields of a part, each with its key in the record."""
    return tuple((one.name, _KEYS.get(one.name, one.name)) for one in fields(kind))


def _nest(record: object) -> object:
    """Return a flat record with every part in its place; each takes the fields that are its own."""
    if not isinstance(record, dict):
        return record
    flat = {**record, **{name: record[key] for name, key in _KEYS.items() if key in record}}
    forecast = {**flat, "times": flat, "energy": flat}
    other = _nest(record.get("counterfactual"))
    return {**flat, "inference": flat, "forecast": forecast, "assessment": flat, "counterfactual": other}


def _clean(decision: Decision) -> Decision:
    """Return the decision with words that fit into a status; any client that may write pods may have written them."""
    excluded = {clean_line(name, MAX_REJECTED_NAME): count for name, count in decision.assessment.excluded.items()}
    other = decision.counterfactual
    return replace(
        decision,
        policy=clean_line(decision.policy, MAX_NAME),
        gpu_type=clean_line(decision.gpu_type, MAX_NAME),
        reason=clean_line(decision.reason, MAX_REASON),
        counterfactual=other and replace(other, gpu_type=clean_line(other.gpu_type, MAX_NAME)),
        assessment=replace(decision.assessment, excluded=excluded),
        alternatives=tuple(one.cleaned() for one in decision.alternatives[:MAX_ALTERNATIVES]),
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
    """Whether a number is finite, small enough to compute with, and of the sign that it must have."""
    if not isinstance(value, int | float):
        return not isinstance(value, Mapping) or all(_is_possible("", count) for count in value.values())
    if not isfinite(value) or abs(value) > MAX_FIGURE:
        return False
    return value >= MIN_DIVISOR if name in _POSITIVE else value >= 0 or name in _ANY_SIGN
