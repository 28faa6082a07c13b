"""The task as it is read, and the pod that is made from it."""

import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.api import names
from perllm.api.names import MAX_POD_NAME, pod_name
from perllm.api.task_status import TaskPhase, TaskStatus
from perllm.controller.pods import build_pod
from perllm.controller.task import read_task
from unit.controller.samples import TEMPLATE, make_task, task_object


class TestTask:
    @pytest.mark.parametrize(
        ("seen_s", "received_s"), [(1000.25, 1000.25), (5000.0, 1001.0), (900.0, 1000.0)], ids=["now", "late", "skewed"]
    )
    def test_is_received_within_the_second_of_its_creation(self, seen_s: float, received_s: float) -> None:
        task, _ = read_task(task_object(), seen_s)
        assert (task.received_s, task.due_s) == (received_s, received_s + 60)

    @settings(deadline=None)
    @given(st.floats(1000, 1001))
    def test_keeps_its_time_of_receipt_over_a_restart_exactly(self, seen_s: float) -> None:
        task, _ = read_task(task_object(), seen_s)
        status = TaskStatus(received_time=datetime.fromtimestamp(task.received_s, UTC)).to_object()
        assert read_task(task_object(status=status), 9999.0)[0].received_s == task.received_s

    def test_that_cannot_be_understood_explains_what_is_wrong(self) -> None:
        task, _ = read_task(task_object(deadline="0s", promptTokens=-1, colour="red"), 1000.0)
        assert task.spec is None
        for part in ("spec.deadline: ", "spec.promptTokens: ", "spec.colour: "):
            assert part in task.problem
        with pytest.raises(ValueError, match="has no valid spec"):
            _ = task.due_s

    def test_takes_its_status_from_the_object(self) -> None:
        assert read_task(task_object(status={"phase": "Running"}), 1000.0)[1].phase is TaskPhase.RUNNING
        assert read_task(task_object(status={"phase": "Dreaming"}), 1000.0)[1] == TaskStatus()

    def test_asks_placement_for_what_it_needs(self) -> None:
        request = make_task(inputBytes="2Ki", tiers=["edge"]).to_request()
        assert (request.task_id, request.model, request.prompt_tokens, request.output_tokens) == (
            "uid-t",
            "m",
            1000,
            100,
        )
        assert (request.input_bytes, request.tiers, request.due_s, request.deadline_s) == (2048, {"edge"}, 1060.0, 60.0)


class TestPod:
    def test_belongs_to_the_task_and_to_our_scheduler(self) -> None:
        pod = build_pod(make_task(), 2, "perllm")
        owner = pod["metadata"]["ownerReferences"][0]
        assert (pod["metadata"]["name"], pod["metadata"]["namespace"]) == ("t-2", "lab")
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            names.TASK_KIND,
            "t",
            "uid-t",
            True,
        )
        assert pod["metadata"]["labels"] == {
            names.TASK_LABEL: "t",
            names.MODEL_LABEL: "m",
            names.ATTEMPT_LABEL: "2",
        }
        assert pod["metadata"]["annotations"] == {
            names.DEADLINE_ANNOTATION: "1970-01-01T00:17:40.000000Z",
            names.CONTAINERS_ANNOTATION: "llm",
        }
        assert (pod["spec"]["schedulerName"], pod["spec"]["restartPolicy"]) == ("perllm", "Never")
        assert pod["spec"]["containers"] == TEMPLATE["spec"]["containers"]

    def test_keeps_what_the_template_says_except_what_is_ours(self) -> None:
        template = {
            "metadata": {
                "labels": {"team": "x", names.TASK_LABEL: "forged", f"{names.GROUP}/other": "forged"},
                "annotations": {"note": "y", names.DECISION_ANNOTATION: "forged"},
            },
            "spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure", "schedulerName": "other", "priority": 3},
        }
        before = copy.deepcopy(template)
        pod = build_pod(make_task(template=template), 1, "perllm")
        assert pod["metadata"]["labels"]["team"] == "x"
        assert pod["metadata"]["labels"][names.TASK_LABEL] == "t"
        assert "forged" not in pod["metadata"]["labels"].values()
        assert pod["metadata"]["annotations"]["note"] == "y"
        assert names.DECISION_ANNOTATION not in pod["metadata"]["annotations"]
        assert (pod["spec"]["restartPolicy"], pod["spec"]["priority"]) == ("OnFailure", 3)
        assert pod["spec"]["schedulerName"] == "perllm"
        assert template == before

    def test_names_of_models_become_valid_labels(self) -> None:
        label = build_pod(make_task(model="meta-llama/Llama-3.1-8B"), 1, "perllm")["metadata"]["labels"]
        assert "/" not in label[names.MODEL_LABEL]

    @settings(deadline=None)
    @given(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True), st.integers(1, 999))
    def test_names_are_valid_and_tell_attempts_apart(self, name: str, attempt: int) -> None:
        task = make_task(name)
        found = pod_name(task.name, attempt)
        assert len(found) <= MAX_POD_NAME
        assert found == pod_name(task.name, attempt) != pod_name(task.name, attempt + 1)
        assert found.endswith(f"-{attempt}")

    def test_names_tell_long_tasks_apart_that_differ_in_their_ends(self) -> None:
        stem = "nightly-batch-" * 8
        assert pod_name(stem + "1", 1) != pod_name(stem + "2", 1)
