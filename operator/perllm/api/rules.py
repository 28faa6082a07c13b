"""Validation rules that OpenAPI cannot express, in CEL, with messages that say what is valid."""

from collections.abc import Mapping, Sequence

from perllm.api.names import GROUP, MAX_LABEL_LENGTH
from perllm.api.prompt import MAX_PROMPT_LENGTH, Generation
from perllm.api.quantities import DURATION_PATTERN
from perllm.api.template import MAX_KEY_LENGTH

Rule = dict[str, str | bool]

GENERATION_FIELDS = tuple(field.alias or name for name, field in Generation.model_fields.items())

# Decisions are based on these fields, so they must not change; all others may change while the task exists.
ALWAYS_GIVEN = ("model", "inputBytes", "deadline", "onInfeasible")
OPTIONAL = (
    "promptTokens",
    "outputTokens",
    "tiers",
    "template",
    "prompt",
    "messages",
    "prompts",
    "system",
    *GENERATION_FIELDS,
)
IMMUTABLE_FIELDS = ALWAYS_GIVEN + OPTIONAL


def task_rules() -> tuple[Rule, ...]:
    """Return the rules for the task as a whole."""
    return (
        {
            "rule": f"size(self.metadata.name) <= {MAX_LABEL_LENGTH}",
            "message": f"metadata.name must have at most {MAX_LABEL_LENGTH} characters: its pods carry it as a label",
        },
    )


def task_spec_rules() -> tuple[Rule, ...]:
    """Return the rules for the task's spec as a whole: how its work is given, and which fields come and go.

    The API server evaluates all rules at every write of a status too, and takes time for each field that they look up.
    So what cannot change is checked only once.
    """
    return (*map(_at_creation, _work_rules()), *map(_is_kept, OPTIONAL))


def _work_rules() -> tuple[Rule, ...]:
    of_a_request = " || ".join(f"has(self.{field})" for field in ("system", *GENERATION_FIELDS))
    return (
        {
            "rule": "[has(self.prompt), has(self.messages), has(self.prompts), has(self.template)]"
            ".filter(given, given).size() == 1",
            "message": "exactly one of spec.prompt, spec.messages, spec.prompts and spec.template must be given",
        },
        {
            "rule": "!has(self.template) || has(self.promptTokens)",
            "message": "spec.promptTokens is required with a template: how many tokens the pod's prompts have",
        },
        {
            "rule": f"!has(self.template) || !({of_a_request})",
            "message": "sampling parameters and spec.system belong to spec.prompt, spec.messages and spec.prompts; "
            "with a template the pod's own arguments state them",
        },
        {
            "rule": "!has(self.messages) || self.messages.map(one, size(one.content)).sum() + "
            f"(has(self.system) ? size(self.system) : 0) <= {MAX_PROMPT_LENGTH}",
            "message": f"spec.messages and spec.system may have at most {MAX_PROMPT_LENGTH} characters together; "
            "split them into several tasks, or mount a file into the pod of a template",
        },
        {
            "rule": "!has(self.prompts) || self.prompts.map(one, size(one)).sum() + "
            f"(has(self.system) ? size(self.system) : 0) <= {MAX_PROMPT_LENGTH}",
            "message": f"spec.prompts and spec.system may have at most {MAX_PROMPT_LENGTH} characters together; split "
            "them into several tasks, as perllm submit does",
        },
        {
            "rule": "!has(self.prompt) || size(self.prompt) + (has(self.system) ? size(self.system) : 0) <= "
            f"{MAX_PROMPT_LENGTH}",
            "message": f"spec.prompt and spec.system may have at most {MAX_PROMPT_LENGTH} characters together",
        },
    )


def task_field_rules() -> Mapping[str, Sequence[Rule]]:
    """Return the rules for single fields of the task's spec, by their path in it."""
    rules: dict[str, tuple[Rule, ...]] = {field: (_is_immutable(field),) for field in IMMUTABLE_FIELDS}
    for path, of_value in _value_rules().items():
        is_fixed = path.partition(".")[0] in IMMUTABLE_FIELDS
        rules[path] = (*map(_at_creation, of_value), *rules.get(path, ())) if is_fixed else of_value
    return rules


def _value_rules() -> Mapping[str, tuple[Rule, ...]]:
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
    message = f"spec.{field} is immutable: create a new task instead"
    return {"rule": "self == oldSelf", "message": message, "reason": "FieldValueForbidden"}


def _is_kept(field: str) -> Rule:
    """Return the rule on the spec that a field is neither added nor removed, which a rule on the field does not see."""
    return {**_is_immutable(field), "rule": f"has(self.{field}) == has(oldSelf.{field})", "fieldPath": f".{field}"}


def _at_creation(rule: Rule) -> Rule:
    return {**rule, "rule": f"oldSelf.hasValue() || ({rule['rule']})", "optionalOldSelf": True}
