"""What is understood of nodes, pods and times."""

from typing import Any

import pytest

from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.node import NodeLabels, read_node
from perllm.cluster.pod import PodPhase, read_pod
from perllm.cluster.times import format_time, parse_time_s


def node_object(*, labels: dict[str, str] | None = None, gpus: str = "4", **status: Any) -> dict[str, Any]:
    own = {names.TIER_LABEL: "edge", names.GPU_TYPE_LABEL: "T4"} if labels is None else labels
    return {
        "metadata": {"name": "n", "uid": "u", "labels": own},
        "spec": {},
        "status": {"allocatable": {names.GPU_RESOURCE: gpus}, **status},
    }


def pod_object(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "t-2",
            "namespace": "lab",
            "uid": "pod-uid",
            "labels": {names.ATTEMPT_LABEL: "2"},
            "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "task-uid"}],
        },
        "spec": {"containers": [{"name": "llm"}, {"name": "sidecar"}]},
        "status": {"phase": "Pending", **status},
    }


class TestNode:
    def test_belongs_to_the_fleet_by_its_tier_and_its_slots(self) -> None:
        node = read_node(node_object(addresses=[{"type": "InternalIP", "address": "10.0.0.1"}]), NodeLabels())
        assert node is not None
        assert (node.name, node.uid, node.tier, node.gpu_type, node.slots) == ("n", "u", Tier.EDGE, "T4", 4.0)
        assert (node.addresses, node.is_open) == (frozenset({"10.0.0.1"}), True)

    @pytest.mark.parametrize(
        "item",
        [
            node_object(labels={}),
            node_object(labels={names.TIER_LABEL: "fog"}),
            node_object(gpus="0"),
            {"metadata": {"name": "n", "uid": "u"}},
        ],
        ids=["no tier", "unknown tier", "no slots", "bare"],
    )
    def test_is_none_of_the_fleet_otherwise(self, item: dict[str, Any]) -> None:
        assert read_node(item, NodeLabels()) is None

    def test_has_the_cpu_and_memory_that_its_pods_may_request(self) -> None:
        item = node_object()
        item["status"]["allocatable"] |= {"cpu": "3920m", "memory": "15Gi"}
        node = read_node(item, NodeLabels())
        assert node is not None
        assert (node.cpu_cores, node.memory_bytes) == (3.92, 15 * 2**30)

    def test_may_be_described_by_other_labels(self) -> None:
        item = node_object(labels={"site": "cloud", "accelerator": "h100"})
        item["status"]["allocatable"] = {"amd.com/gpu": "8"}
        node = read_node(item, NodeLabels("site", "accelerator", ("amd.com/gpu",)))
        assert node is not None
        assert (node.tier, node.gpu_type, node.slots) == (Tier.CLOUD, "h100", 8.0)

    @pytest.mark.parametrize(
        ("allocatable", "labels", "resources", "gpu_type", "gpus"),
        [
            ({"amd.com/gpu": "8"}, {"amd.com/gpu.product-name": "MI300X"}, {"amd.com/gpu": 8}, "MI300X", 8),
            ({"gpu.intel.com/xe": "2"}, {"gpu.intel.com/product": "B60"}, {"gpu.intel.com/xe": 2}, "B60", 2),
            ({names.GPU_RESOURCE: "0", "nvidia.com/gpu.shared": "16"}, {}, {"nvidia.com/gpu.shared": 16}, "T4", 1),
            (
                {names.GPU_RESOURCE: "0", "nvidia.com/mig-1g.10gb": "4", "nvidia.com/mig-3g.40gb": "1"},
                {"nvidia.com/mig-1g.10gb.product": "A100-MIG-1g.10gb"},
                {"nvidia.com/mig-1g.10gb": 4, "nvidia.com/mig-3g.40gb": 1},
                "A100-MIG-1g.10gb",
                5,
            ),
            ({"cpu": "6"}, {names.SLOTS_LABEL: "3"}, {"": 3}, "T4", 1),
            ({names.GPU_RESOURCE: "2"}, {names.SLOTS_LABEL: "3"}, {names.GPU_RESOURCE: 2}, "T4", 1),
        ],
        ids=["AMD", "Intel", "time-slicing, renamed", "several MIG profiles", "no device plugin", "both"],
    )
    def test_has_slots_of_any_usual_resource(
        self,
        allocatable: dict[str, str],
        labels: dict[str, str],
        resources: dict[str, float],
        gpu_type: str,
        gpus: float,
    ) -> None:
        types = {} if "product" in str(labels) else {names.GPU_TYPE_LABEL: "T4"}
        item = node_object(labels={names.TIER_LABEL: "edge", **types, **labels})
        item["status"]["allocatable"] = allocatable
        node = read_node(item, NodeLabels())
        assert node is not None
        assert (node.resources, node.slots) == (resources, sum(resources.values()))
        assert (node.gpu_type, node.gpus) == (gpu_type, gpus)

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "٣", "9" * 30])
    def test_takes_no_odd_number_of_slots_from_a_label(self, text: str) -> None:
        item = node_object(labels={names.TIER_LABEL: "edge", names.SLOTS_LABEL: text}, gpus="0")
        assert read_node(item, NodeLabels()) is None

    def test_without_a_gpu_type_has_an_unknown_one(self) -> None:
        node = read_node(node_object(labels={names.TIER_LABEL: "edge"}), NodeLabels())
        assert node is not None
        assert node.gpu_type == "unknown"

    @pytest.mark.parametrize(
        ("spec", "ready", "is_open"),
        [({}, "True", True), ({}, "False", False), ({}, "Unknown", False), ({"unschedulable": True}, "True", False)],
    )
    def test_takes_pods_while_it_is_ready_and_not_cordoned(
        self, spec: dict[str, Any], ready: str, is_open: bool
    ) -> None:
        node = read_node({**node_object(conditions=[{"type": "Ready", "status": ready}]), "spec": spec}, NodeLabels())
        assert node is not None
        assert node.is_open is is_open


class TestPod:
    def test_that_no_task_owns_is_none_of_ours(self) -> None:
        item = pod_object()
        item["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "j", "uid": "u"}]
        assert read_pod(item) is None
        del item["metadata"]["ownerReferences"]
        assert read_pod(item) is None

    def test_that_waits_has_no_node(self) -> None:
        pod = read_pod(pod_object())
        assert pod is not None
        assert (pod.key, pod.task_key, pod.task_uid, pod.attempt) == ("lab/t-2", "lab/t", "task-uid", 2)
        assert (pod.node, pod.phase, pod.is_finished, pod.exit_code) == (None, PodPhase.PENDING, False, None)

    def test_is_known_by_its_first_container_in_whatever_order_the_statuses_come(self) -> None:
        ended = {
            "exitCode": 3,
            "startedAt": "2027-01-15T08:00:00Z",
            "finishedAt": "2027-01-15T08:00:05Z",
            "reason": "Error",
            "message": '{"outputTokens": 7}',
        }
        statuses = [{"name": "sidecar", "state": {"running": {}}}, {"name": "llm", "state": {"terminated": ended}}]
        pod = read_pod(pod_object(phase="Failed", containerStatuses=statuses))
        assert pod is not None
        assert (pod.exit_code, pod.reason, pod.is_finished) == (3, "Error", True)
        assert (pod.started_s, pod.finished_s) == (1_800_000_000.0, 1_800_000_005.0)
        assert pod.report is not None
        assert pod.report.output_tokens == 7

    def test_tells_what_was_done_to_it(self) -> None:
        item = pod_object(conditions=[{"type": "DisruptionTarget", "status": "True"}])
        item["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
        item["metadata"]["annotations"] = {names.DECISION_ANNOTATION: "record"}
        item["spec"]["nodeName"] = "n"
        pod = read_pod(item)
        assert pod is not None
        assert (pod.is_disrupted, pod.is_deleting, pod.node, pod.decision_record) == (True, True, "n", "record")

    def test_without_an_attempt_is_the_first(self) -> None:
        item = pod_object()
        item["metadata"] |= {"name": "t-1", "labels": {}}
        pod = read_pod(item)
        assert pod is not None
        assert pod.attempt == 1

    def test_of_another_name_than_the_attempt_has_is_none_of_ours(self) -> None:
        item = pod_object()
        item["metadata"]["name"] = "t-2-odd"
        assert read_pod(item) is None

    @pytest.mark.parametrize("label", ["", "x", "-1", "0", "1" * 26, "\u0661", 7, None])
    def test_with_an_attempt_that_was_never_made_is_none_of_ours(self, label: object) -> None:
        item = pod_object()
        item["metadata"] |= {"name": f"t-{label}", "labels": {names.ATTEMPT_LABEL: label}}
        assert read_pod(item) is None

    @pytest.mark.parametrize("lost", [{"ownerReferences": []}, {"labels": {names.ATTEMPT_LABEL: "x"}}], ids=str)
    def test_that_is_retained_is_read_although_its_task_is_unknown(self, lost: dict[str, Any]) -> None:
        item = pod_object()
        item["metadata"] |= {"finalizers": ["example.com/other", names.OUTCOME_FINALIZER], **lost}
        pod = read_pod(item)
        assert pod is not None
        assert (pod.task_uid, pod.is_retained) == ("", True)


def test_times_have_microseconds() -> None:
    assert format_time(1_800_000_000.25) == "2027-01-15T08:00:00.250000Z"
    assert parse_time_s("2027-01-15T08:00:00.250000Z") == 1_800_000_000.25
    assert parse_time_s("2027-01-15T09:00:00+01:00") == 1_800_000_000.0
    assert parse_time_s(None) is None
