import pytest

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.settings.operation import ShadowSettings
from perllm.shadow.selection import read_shadowed_pod
from unit.annotated.pods import pod_object

LABELLED = ShadowSettings(match_labels={"app": "llm"}, model="usual", deadline="20s", prompt_tokens=300)


def read(settings: ShadowSettings | None = None, **fields: object) -> AnnotatedPod | None:
    return read_shadowed_pod(pod_object(**fields), settings or ShadowSettings(), "nvidia.com/gpu")  # type: ignore[arg-type]


def test_annotations_say_what_the_task_asks_for() -> None:
    shadowed = read(
        annotations={
            "perllm.io/model": "m",
            "perllm.io/deadline": "30s",
            "perllm.io/prompt-tokens": "500",
            "perllm.io/output-tokens": "80",
            "perllm.io/input-bytes": "2000",
        }
    )
    assert shadowed is not None
    request = shadowed.to_request(1000.0)
    assert (request.model, request.prompt_tokens, request.output_tokens) == ("m", 500, 80)
    assert (request.input_bytes, request.due_s, request.namespace, request.slots) == (2000, 1030.0, "lab", 1.0)


def test_a_pod_with_the_labels_is_compared_with_the_defaults() -> None:
    shadowed = read(LABELLED, annotations={}, labels={"app": "llm", "more": "x"})
    assert shadowed is not None
    request = shadowed.to_request(1000.0)
    assert (request.model, request.prompt_tokens, request.deadline_s) == ("usual", 300, 20.0)


@pytest.mark.parametrize("labels", [{}, {"app": "web"}])
def test_other_pods_are_not_compared(labels: dict[str, str]) -> None:
    assert read(LABELLED, annotations={}, labels=labels) is None


def test_without_settings_about_labels_only_annotations_count() -> None:
    assert read(annotations={}, labels={"app": "llm"}) is None


@pytest.mark.parametrize(
    "wrong", [{"perllm.io/deadline": "soon"}, {"perllm.io/prompt-tokens": "0"}, {"perllm.io/output-tokens": "many"}]
)
def test_a_pod_whose_annotations_are_not_understood_is_not_compared(wrong: dict[str, str]) -> None:
    assert read(annotations={"perllm.io/model": "m", **wrong}) is None


def test_a_pod_of_a_task_is_not_compared_with_itself() -> None:
    assert read(ownerReferences=[{"kind": "LLMInferenceTask", "name": "t", "uid": "uid-t"}]) is None
