from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from pydantic import ValidationError

from perllm.api.task import TaskSpec
from perllm.api.template import MAX_LEVELS

CONTAINERS = [{"name": "main", "image": "llm"}]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)

metadata_fields = st.sampled_from(["labels", "annotations", "name"])
spec_fields = st.sampled_from(["containers", "initContainers", "nodeName", "nodeSelector", "tolerations", "affinity"])
templates = (
    anything
    | st.fixed_dictionaries(
        {"metadata": st.dictionaries(metadata_fields, anything), "spec": st.just({"containers": CONTAINERS})}
    )
    | st.dictionaries(spec_fields, anything).map(lambda spec: {"spec": {"containers": CONTAINERS, **spec}})
)


def read(template: Any) -> TaskSpec:
    return TaskSpec.model_validate({"model": "llama", "promptTokens": 10, "deadline": "30s", "template": template})


def read_metadata(**metadata: Any) -> TaskSpec:
    return read({"metadata": metadata, "spec": {"containers": CONTAINERS}})


def read_spec(**spec: Any) -> TaskSpec:
    return read({"spec": {"containers": CONTAINERS, **spec}})


def refusal(read: Callable[..., TaskSpec], *arguments: Any, **fields: Any) -> str:
    """Return where the fault is, and what it is."""
    with pytest.raises(ValidationError) as caught:
        read(*arguments, **fields)
    first = caught.value.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"labels": ["app", "web"]}, "template.metadata.labels: Input should be a valid dictionary"),
        ({"labels": "app=web"}, "template.metadata.labels: Input should be a valid dictionary"),
        ({"labels": {"app": 1}}, "template.metadata.labels.app: Input should be a valid string"),
        ({"labels": {"app": "x" * 64}}, "template.metadata.labels.app: String should have at most 63 characters"),
        ({"labels": {"app": "\x1b[2J"}}, "template.metadata.labels.app: String should match pattern"),
        (
            {"labels": {"a b": ""}},
            "template.metadata.labels: Value error, 'a b' is not a valid key: write for example app",
        ),
        ({"annotations": {"\x1b[2J!": ""}}, "template.metadata.annotations: Value error, '!' is not a valid key"),
        ({"annotations": {"note": None}}, "template.metadata.annotations.note: Input should be a valid string"),
    ],
)
def test_labels_and_annotations_are_texts_by_keys(metadata: dict[str, Any], message: str) -> None:
    assert message in refusal(read_metadata, **metadata)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"nodeName": "edge-1"}, "template.spec.nodeName: Value error, must be absent: PerLLM chooses the node"),
        ({"restartPolicy": "Always"}, "template.spec.restartPolicy: Input should be 'Never' or 'OnFailure'"),
        ({"restartPolicy": None}, "template.spec.restartPolicy: Input should be 'Never' or 'OnFailure'"),
        ({"containers": []}, "template.spec.containers: Tuple should have at least 1 item"),
        ({"containers": [{"image": "llm"}]}, "template.spec.containers.0.name: Field required"),
        ({"containers": ["main"]}, "template.spec.containers.0: Input should be"),
        ({"tolerations": ["all"]}, "template.spec.tolerations.0: Input should be a valid dictionary"),
        (
            {"containers": [{"name": "main", "resources": {"limits": ["gpu"]}}]},
            "template.spec.containers.0.resources.limits: Input should be a valid dictionary",
        ),
    ],
)
def test_what_placement_reads_of_a_pod_has_its_form(spec: dict[str, Any], message: str) -> None:
    assert message in refusal(read_spec, **spec)


def test_nulls_and_unknown_fields_pass_as_they_are() -> None:
    template = {
        "metadata": {"labels": None, "annotations": None},
        "spec": {"nodeName": None, "nodeSelector": None, "future": [1], "containers": [{"name": "main", "new": {}}]},
    }

    assert read(template).template == template


def nest(levels: int) -> Any:
    value: Any = []
    for number in range(levels - 1):
        value = [value] if number % 2 else {"deeper": value}
    return value


@pytest.mark.parametrize("levels", [MAX_LEVELS + 1, 260, 1_100, 100_000])
def test_deep_nesting_is_refused(levels: int) -> None:
    message = refusal(read_spec, affinity=nest(levels - 2))

    assert message == "template: Value error, nested more than 64 levels deep"


def test_as_many_levels_as_are_allowed_are_taken() -> None:
    assert read_spec(affinity=nest(MAX_LEVELS - 2))


@given(templates)
def test_any_json_is_either_refused_with_words_or_can_be_sent_on(template: Any) -> None:
    try:
        spec = read(template)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        event(faults[0]["type"])
    else:
        orjson.dumps(spec.template)


@given(anything)
def test_any_json_for_a_spec_is_refused_with_words(value: Any) -> None:
    with pytest.raises(ValidationError):
        TaskSpec.model_validate(value)


def test_what_no_json_can_hold_is_refused() -> None:
    assert "template: Value error, cannot be written as JSON" in refusal(read_spec, hostname="\ud800")
