"""Validation rules that OpenAPI cannot express, in CEL, with messages that say what is valid."""

from collections.abc import Mapping, Sequence

from perllm.api.names import GROUP, MAX_LABEL_LENGTH
from perllm.api.quantities import DURATION_PATTERN
from perllm.api.template import MAX_KEY_LENGTH

Rule = dict[str, str]

# Decisions are based on these fields, so they must not change; all others may change while the task exists.
IMMUTABLE_FIELDS = (
    "model",
    "promptTokens",
    "outputTokens",
    "inputBytes",
    "deadline",
    "tiers",
    "onInfeasible",
    "template",
)


def task_rules() -> tuple[Rule, ...]:
    """Return the rules for the task as a whole."""
    return (
        {
            "rule": f"size(self.metadata.name) <= {MAX_LABEL_LENGTH}",
            "message": f"metadata.name must have at most {MAX_LABEL_LENGTH} characters: its pods carry it as a label",
        },
    )


def task_spec_rules() -> tuple[Rule, ...]:
    """Return the rules for the task's spec as a whole: which fields are immutable."""
    return tuple(_is_immutable(field) for field in IMMUTABLE_FIELDS)


def task_field_rules() -> Mapping[str, Sequence[Rule]]:
    """Return the rules for single fields of the task's spec, by their path in it."""
    deadline = "duration(self) > duration('0s') && duration(self) <= duration('24h')"
    return {
        "deadline": (_is_duration("deadline", deadline, "of more than 0s and at most 24h, for example 30s or 1m30s"),),
        "ttlAfterFinished": (
            _is_duration("ttlAfterFinished", "duration(self) <= duration('720h')", "of at most 720h, for example 10m"),
        ),
        "inputBytes": (
            {
                "rule": "type(self) == int ? self >= 0 && self <= 1099511627776 : isQuantity(self) && "
                "quantity(self).compareTo(quantity('0')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0",
                "message": "spec.inputBytes must be a quantity between 0 and 1Ti, for example 512Ki, 2Mi or 1500000",
            },
        ),
        "template.metadata.labels": _has_own_keys("labels"),
        "template.metadata.annotations": _has_own_keys("annotations"),
        "template.spec": (
            {
                "rule": "!has(self.nodeName) || self.nodeName == ''",
                "message": "spec.template.spec.nodeName must be absent: PerLLM chooses the node; nodeSelector and "
                "affinity narrow its choice",
                "fieldPath": ".nodeName",
                "reason": "FieldValueForbidden",
            },
        ),
    }


def _has_own_keys(field: str) -> tuple[Rule, ...]:
    return (
        {
            "rule": f"self.all(key, size(key) <= {MAX_KEY_LENGTH} && !key.startsWith('{GROUP}/'))",
            "message": f"keys of spec.template.metadata.{field} must have at most {MAX_KEY_LENGTH} characters and not "
            f"begin with {GROUP}/, which is reserved for PerLLM",
        },
    )


def _is_duration(field: str, limit: str, what: str) -> Rule:
    return {
        "rule": f"self.matches('{DURATION_PATTERN}') && {limit}",
        "message": f"spec.{field} must be a duration {what}",
    }


def _is_immutable(field: str) -> Rule:
    return {
        # A rule on the field itself would not see an optional field being added or removed.
        "rule": f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        "message": f"spec.{field} is immutable: create a new task instead",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
    }
