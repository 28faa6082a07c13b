"""How far a pod has come, and in whose words, from what kubelet and kube-scheduler write into its status."""

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perllm.api import names
from perllm.cluster.pod import LINGER_S, MAX_ATTEMPT, Pod, PodPhase, read_pod

REPORT = json.dumps({"finishedAt": "2026-11-25T09:00:10.4Z", "outputTokens": 129, "text": "Blue."})
WAITS = {"waiting": {"reason": "PodInitializing"}}
RUNS = {"running": {"startedAt": "2026-11-25T09:00:02Z"}}


def ended(code: int = 0, **fields: object) -> dict[str, Any]:
    times = {"startedAt": "2026-11-25T09:00:05Z", "finishedAt": "2026-11-25T09:00:10Z"}
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", **times, **fields}}


def pod_object(phase: str = "Running", *, own: str = "llm", **states: dict[str, Any]) -> dict[str, Any]:
    """Return a pod on node n whose template has the containers `own`; a name that begins with init is one of those."""
    containers = {name.replace("_", "-"): state for name, state in states.items()}
    inits = {name: state for name, state in containers.items() if name.startswith("init")}
    rest = {name: state for name, state in containers.items() if not name.startswith("init")}
    return {
        "metadata": {
            "name": "t-1",
            "namespace": "lab",
            "uid": "uid-t-1",
            "creationTimestamp": "2026-11-25T09:00:00Z",
            "labels": {names.TASK_LABEL: "t", names.ATTEMPT_LABEL: "1"},
            "annotations": {names.CONTAINERS_ANNOTATION: own},
            "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
            "managedFields": [{"manager": "kubelet", "subresource": "status", "time": "2026-11-25T09:00:11Z"}],
        },
        "spec": {
            "nodeName": "n",
            "restartPolicy": "Never",
            "containers": [{"name": name} for name in rest],
            "initContainers": [{"name": name} for name in inits],
        },
        "status": {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-25T09:00:01Z"}],
            "containerStatuses": [{"name": name, "state": state} for name, state in reversed(rest.items())],
            "initContainerStatuses": [{"name": name, "state": state} for name, state in inits.items()],
        },
    }


def read(item: dict[str, Any]) -> Pod:
    pod = read_pod(item)
    assert pod is not None
    return pod


class TestOwnContainer:
    def test_is_the_first_of_the_template_wherever_it_stands_in_the_pod(self) -> None:
        pod = read(pod_object("Succeeded", istio_proxy=ended(), llm=ended(message=REPORT)))
        assert (pod.phase, pod.exit_code, pod.linger_s) == (PodPhase.SUCCEEDED, 0, None)
        assert pod.report is not None
        assert (pod.report.output_tokens, pod.report.text, pod.output_tokens) == (129, "Blue.", 129)

    def test_decides_though_an_injected_one_lives_on(self) -> None:
        pod = read(pod_object(istio_proxy=RUNS, llm=ended(message=REPORT)))
        assert (pod.phase, pod.linger_s) == (PodPhase.SUCCEEDED, 0.0)
        assert read(pod_object(istio_proxy=RUNS, llm=ended(3))).phase is PodPhase.FAILED

    def test_has_no_complete_answers_if_it_failed(self) -> None:
        assert read(pod_object("Failed", llm=ended(3, message=REPORT))).output_tokens is None

    def test_decides_though_an_injected_one_failed(self) -> None:
        pod = read(pod_object("Failed", istio_proxy=ended(1), llm=ended()))
        assert (pod.phase, pod.exit_code) == (PodPhase.SUCCEEDED, 0)

    def test_waits_for_those_that_the_template_has_beside_it(self) -> None:
        pod = read(pod_object(own="llm,upload", llm=ended(), upload=RUNS))
        assert (pod.phase, pod.has_helpers_left, pod.linger_s) == (PodPhase.RUNNING, True, LINGER_S)
        failed = read(pod_object("Failed", own="llm,upload", llm=ended(), upload=ended(4)))
        assert (failed.phase, failed.exit_code, failed.culprit) == (PodPhase.FAILED, 4, "upload")

    def test_leaves_sidecars_to_kubelet(self) -> None:
        item = pod_object(init_server=RUNS, llm=ended())
        item["spec"]["initContainers"][0]["restartPolicy"] = "Always"
        pod = read(item)
        assert (pod.phase, pod.linger_s) == (PodPhase.SUCCEEDED, LINGER_S)
        item = pod_object("Succeeded", init_server=ended(143), llm=ended())
        item["spec"]["initContainers"][0]["restartPolicy"] = "Always"
        assert read(item).phase is PodPhase.SUCCEEDED

    def test_that_is_started_again_has_not_ended(self) -> None:
        item = pod_object(llm=ended(1))
        item["spec"]["restartPolicy"] = "OnFailure"
        assert (read(item).phase, read(item).exit_code, read(item).finished_s) == (PodPhase.RUNNING, None, None)

    def test_is_the_first_of_the_pod_where_nothing_was_noted(self) -> None:
        item = pod_object("Succeeded", llm=ended(message=REPORT), proxy=ended())
        item["metadata"]["annotations"] = None
        assert read(item).report is not None

    def test_that_was_stopped_by_kubernetes_has_not_succeeded_whatever_it_returned(self) -> None:
        item = pod_object("Failed", llm=ended(0))
        item["status"] |= {"reason": "DeadlineExceeded", "message": "Pod was active on the node for too long"}
        pod = read(item)
        assert (pod.phase, pod.reason, pod.message) == (
            PodPhase.FAILED,
            "DeadlineExceeded",
            "Pod was active on the node for too long",
        )


class TestFailure:
    def test_of_an_init_container_has_its_code_and_words(self) -> None:
        pod = read(pod_object("Failed", init_fetch=ended(1, message="404 for weights.gguf"), llm=WAITS))
        assert (pod.exit_code, pod.culprit, pod.message) == (1, "init-fetch", "404 for weights.gguf")
        assert (pod.started_s, pod.finished_s, pod.report) == (None, None, None)

    def test_of_a_container_that_kubelet_lost_has_no_code(self) -> None:
        assert read(pod_object("Failed", llm=ended(137, reason="ContainerStatusUnknown"))).exit_code is None

    def test_before_the_deletion_is_none_by_it(self) -> None:
        item = pod_object("Failed", llm=ended(3))
        item["metadata"] |= {"deletionTimestamp": "2026-11-25T09:01:00Z", "deletionGracePeriodSeconds": 30}
        assert not read(item).was_deleted
        item["metadata"]["deletionTimestamp"] = "2026-11-25T09:00:38Z"
        assert read(item).was_deleted

    def test_has_clean_words(self) -> None:
        pod = read(pod_object("Failed", llm=ended(1, message="bad\x1b[2J\nworse " + "x" * 5000)))
        assert pod.message.startswith("bad worse xxx")
        assert len(pod.message) == 1000


class TestWait:
    def test_for_a_node_is_told_in_the_words_of_the_scheduler(self) -> None:
        item = pod_object("Pending", llm={})
        del item["spec"]["nodeName"]
        words = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
        item["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        ]
        pod = read(item)
        assert (pod.wait_reason, pod.wait_message, pod.idle_since_s) == ("Unschedulable", words, None)

    def test_for_an_image_is_told_in_the_words_of_kubelet(self) -> None:
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
        pod = read(pod_object("Pending", init_fetch=waiting, llm=WAITS))
        assert (pod.wait_reason, pod.wait_message) == ("ErrImagePull", "not found")

    @pytest.mark.parametrize(
        ("states", "is_idle"),
        [
            ({"llm": {"waiting": {"reason": "ContainerCreating"}}}, True),
            ({"llm": {"waiting": {"reason": "ErrImagePull"}}, "istio_proxy": RUNS}, True),
            ({"llm": WAITS, "init_fetch": RUNS}, False),
            ({"llm": {"waiting": {"reason": "ErrImagePull"}}, "init_server": RUNS}, True),
            ({"llm": WAITS, "init_fetch": {"waiting": {"reason": "CrashLoopBackOff"}}}, False),
            ({"llm": RUNS}, False),
            ({"llm": {}}, True),
        ],
        ids=[
            "creating",
            "image beside a proxy",
            "init container works",
            "image beside a sidecar",
            "started again",
            "runs",
            "no word",
        ],
    )
    def test_is_idle_while_nothing_brings_its_work_nearer(self, states: dict[str, Any], is_idle: bool) -> None:
        pod = read(pod_object("Running" if "running" in states["llm"] else "Pending", **states))
        assert (pod.idle_since_s is not None) is is_idle


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)

FULL = pod_object("Failed", own="llm,upload", init_fetch=ended(1), llm=ended(3, message=REPORT), upload=RUNS)
FULL["metadata"] |= {"deletionTimestamp": "2026-11-25T09:01:00Z", "deletionGracePeriodSeconds": 30}
FULL["metadata"]["annotations"][names.DECISION_ANNOTATION] = "{}"


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, one in inner for deeper in list_paths(one, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Change what is at `path`, unless an earlier change has taken the way to it."""
    with contextlib.suppress(LookupError, TypeError):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new


PATHS = [path for path in list_paths(FULL) if path]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=4))
@example([(("metadata", "labels"), None)])
@example([(("metadata", "labels", names.ATTEMPT_LABEL), "1" * 26)])
@example([(("metadata", "deletionGracePeriodSeconds"), -(10**400))])
@example([(("status", "containerStatuses", 0, "state", "terminated", "exitCode"), 10**400)])
@example([(("status", "containerStatuses", 0, "state", "terminated", "finishedAt"), "0001-01-01T00:00:00+14:00")])
def test_no_pod_raises_whatever_was_written_into_it(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    item = copy.deepcopy(FULL)
    for path, value in changes:
        put(item, path, value)
    pod = read_pod(item)
    assert pod is None or (1 <= pod.attempt <= MAX_ATTEMPT and len(pod.message) <= 1000)
