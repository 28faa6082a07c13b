import pytest

from perllm.api.task import TaskSpec
from perllm_lab.workload.manifests import format_duration, pod_manifest, served_task_manifest, task_manifest
from perllm_lab.workload.requests import Request

REQUEST = Request("task-1", "chat", 0.0, 1000, 200, 2_000_000, 25.0)


def test_a_task_is_valid_and_its_deadline_shrinks_with_the_speed():
    task = task_manifest(REQUEST, namespace="lab", speed=20.0)
    spec = TaskSpec.model_validate(task["spec"])
    assert (spec.model, spec.prompt_tokens, spec.input_size_bytes) == ("chat", 1000, 2_000_000)
    assert spec.deadline_s == 1.25
    assert task["metadata"] == {"name": "task-1", "namespace": "lab"}


def test_a_task_hides_its_true_length_from_the_scheduler():
    spec = task_manifest(REQUEST, namespace="lab")["spec"]
    assert "outputTokens" not in spec
    assert spec["template"]["metadata"]["annotations"]["lab.perllm.io/output-tokens"] == "200"


def test_a_hint_becomes_the_expected_length():
    hinted = Request("task-1", "chat", 0.0, 1000, 200, 0, 25.0, hint_tokens=170)
    assert task_manifest(hinted, namespace="lab")["spec"]["outputTokens"] == 170


def test_a_served_task_asks_for_the_same_with_a_prompt():
    spec = TaskSpec.model_validate(served_task_manifest(REQUEST, namespace="lab", speed=20.0)["spec"])
    assert spec.is_served
    assert (spec.model, spec.prompt_tokens, spec.input_size_bytes, spec.deadline_s) == ("chat", 1000, 2_000_000, 1.25)
    assert (spec.output_tokens, spec.max_tokens) == (None, None)


def test_task_and_bare_pod_run_the_same_container_on_one_slot():
    task, pod = task_manifest(REQUEST, namespace="lab"), pod_manifest(REQUEST, namespace="lab")
    template = task["spec"]["template"]
    assert pod["spec"] == template["spec"]
    assert pod["metadata"]["annotations"] == template["metadata"]["annotations"]
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "schedulerName" not in pod["spec"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.5, "12.5s"), (30.0, "30s"), (0.1234567, "0.123457s"), (100.0, "100s")]
)
def test_durations_are_written_as_kubernetes_reads_them(seconds, text):
    assert format_duration(seconds) == text
