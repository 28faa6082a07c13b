from typing import Any

import pytest

from perllm.doctor.finding import Finding, Level
from perllm.doctor.nodes import check_circuits, check_nodes
from perllm.settings.nodes import DeviceSettings, NodeSettings
from unit.cluster.device_objects import DRIVER, gpu, slice_object
from unit.doctor.cluster_objects import make_node

EDGE = {"perllm.io__tier": "edge", "nvidia.com__gpu.product": "Tesla-T4"}


OTHER = make_node("for-everything-else", gpus=None)


def check(*nodes: dict[str, Any]) -> list[Finding]:
    return list(check_nodes([*nodes, OTHER], NodeSettings()))


def test_nodes_that_are_well_described_are_counted() -> None:
    cloud = make_node("big", gpus="8", **{**EDGE, "perllm.io__tier": "cloud"})
    assert [str(one) for one in check(make_node("n", **EDGE), cloud, make_node("cpu", gpus=None))] == [
        "ok   nodes: 1 edge, 1 cloud, 12 tasks at a time"
    ]


def test_a_cluster_without_nodes_of_perllm_fails_and_says_how_to_label() -> None:
    (finding,) = check(make_node("cpu", gpus=None))
    assert finding.level is Level.FAIL
    assert "kubectl label node NAME perllm.io/tier=edge" in finding.advice


@pytest.mark.parametrize(
    ("node", "level", "message"),
    [
        (make_node("odd", **{**EDGE, "perllm.io__tier": "fog"}), Level.FAIL, "neither edge nor cloud on odd ('fog')"),
        (make_node("bare", gpus=None, **EDGE), Level.FAIL, "labelled, but without a GPU that can be allocated: bare"),
        (
            make_node("no", gpus=None, **{**EDGE, "perllm.io__slots": "many"}),
            Level.FAIL,
            "labelled, but perllm.io/slots is not a number above 0: no",
        ),
        (make_node("new"), Level.WARN, "without perllm.io/tier: new"),
        (make_node("off", ready="Unknown", **EDGE), Level.WARN, "not ready or cordoned: off"),
        (make_node("plain", **{"perllm.io__tier": "edge"}), Level.WARN, "without nvidia.com/gpu.product: plain"),
        (make_node("tpu", **{**EDGE, "nvidia.com__gpu.product": "TPU"}), Level.WARN, "no published figures for TPU"),
        (make_node("open", taints=False, **EDGE), Level.WARN, "no taint keeps other schedulers off open"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_is_wrong_with_a_node_is_named(node: dict[str, Any], level: Level, message: str) -> None:
    first, *others = check(make_node("good", **EDGE), node)
    assert first.level is Level.OK
    assert [(one.level, one.message) for one in others] == [(level, others[0].message)]
    assert message in others[0].message


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        ({"allocatable": {}}, "without a GPU that can be allocated", "kubectl label node NAME perllm.io/slots=NUMBER"),
        (
            {"allocatable": {"nvidia.com/gpu": "0"}, "capacity": {"nvidia.com/gpu": "4"}},
            "none of its nvidia.com/gpu can be allocated",
            "the log of the device plugin",
        ),
        ({"allocatable": {"amd.com/cpx_nps4": "64"}}, "only with amd.com/cpx_nps4", "config.nodes.gpu_resources"),
    ],
)
def test_a_node_without_slots_gets_the_advice_that_fits(status: dict[str, Any], message: str, advice: str) -> None:
    node = make_node("n", **EDGE)
    node["status"] |= status
    finding = check(make_node("good", **EDGE), node)[-1]
    assert (finding.level, finding.message) == (Level.FAIL, f"labelled, but {message}: n")
    assert advice in finding.advice


DEVICES = NodeSettings(devices=(DeviceSettings(device_class=DRIVER, driver=DRIVER, attributes={"type": "gpu"}),))


def test_a_node_with_devices_that_are_slots_is_well_described() -> None:
    node, slices = make_node("n", gpus=None, **EDGE), [slice_object("n", gpu("0"), gpu("1"))]
    assert [str(one) for one in check_nodes([node], DEVICES, slices)] == [
        "ok   nodes: 1 edge, 0 cloud, 2 tasks at a time"
    ]


@pytest.mark.parametrize(
    ("settings", "slices", "message"),
    [
        (NodeSettings(), [slice_object("n", gpu("0"))], f"labelled, but only with devices of {DRIVER}: n"),
        (DEVICES, [slice_object("n", gpu("0"), total=2)], f"labelled, but without a device of {DRIVER} that"),
        (DEVICES, [], f"no node has devices of {DRIVER}, which config.nodes.devices names"),
        (DEVICES, None, "config.nodes.devices has no effect: the cluster does not serve resource.k8s.io/v1"),
    ],
    ids=["not configured", "incomplete", "no driver", "not served"],
)
def test_a_node_whose_devices_are_no_slots_is_named_with_the_reason(
    settings: NodeSettings, slices: list[dict[str, Any]] | None, message: str
) -> None:
    node = make_node("n", gpus=None, **EDGE)
    assert any(one.message.startswith(message) for one in check_nodes([node], settings, slices))


@pytest.mark.parametrize(
    ("allocatable", "taint"),
    [
        ({"amd.com/gpu": "8"}, "amd.com/gpu"),
        ({"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "7"}, "nvidia.com/gpu"),
        ({}, "perllm.io/slots"),
    ],
)
def test_a_taint_is_one_that_the_programs_of_the_vendor_tolerate(allocatable: dict[str, str], taint: str) -> None:
    node = make_node("n", taints=False, **{**EDGE, "perllm.io__slots": "4"})
    node["status"]["allocatable"] = allocatable
    assert f"kubectl taint node NAME {taint}=:NoSchedule" in check(node)[-1].advice


def test_a_node_with_several_kinds_of_slots_is_named_since_it_learns_them_together() -> None:
    node = make_node("n", **EDGE)
    node["status"]["allocatable"] = {"nvidia.com/mig-1g.10gb": "4", "nvidia.com/mig-3g.40gb": "1"}
    assert "slots of several kinds: n (nvidia.com/mig-1g.10gb, nvidia.com/mig-3g.40gb)" in [
        one.message for one in check(node)
    ]


def test_a_node_of_another_vendor_is_well_described_by_the_labels_of_that_vendor() -> None:
    labels = {"perllm.io__tier": "edge", "amd.com__gpu.product-name": "AMD_Instinct_MI300X_OAM"}
    node = make_node("n", **labels)
    node["status"]["allocatable"] = {"amd.com/gpu": "8"}
    assert "without nvidia.com/gpu.product" not in str(check(node))


def test_a_node_that_lacks_only_the_tier_is_named_with_its_resource() -> None:
    node = make_node("n")
    node["status"]["allocatable"] = {"gpu.intel.com/i915": "2"}
    assert (
        check(make_node("good", **EDGE), node)[-1].message == "with gpu.intel.com/i915, but without perllm.io/tier: n"
    )


def test_many_nodes_are_not_all_named() -> None:
    findings = check(make_node("good", **EDGE), *(make_node(f"n{number}") for number in range(100)))
    assert findings[-1].message.endswith("n0, n1, n2, n3, n4 and 95 more")


def test_where_all_nodes_run_tasks_no_taint_is_asked_for_since_other_pods_would_have_no_place() -> None:
    findings = list(check_nodes([make_node("n", taints=False, **EDGE)], NodeSettings()))
    assert {one.level for one in findings} == {Level.OK}


def test_a_taint_of_kubernetes_itself_keeps_nobody_off() -> None:
    node = make_node("n", **EDGE)
    node["spec"]["taints"] = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    assert "no taint" in check(node)[-1].message


def test_nodes_that_are_given_no_tasks_are_named_with_the_reason() -> None:
    owners = [{"kind": "Node", "name": "broken"}]
    circuit = {"state": "open", "reason": "UnexpectedAdmissionError: GPU is lost", "models": [], "namespaces": ["lab"]}
    profiles = [
        {"metadata": {"name": "two.broken", "ownerReferences": owners}, "status": {"circuit": circuit}},
        {"metadata": {"name": "good"}, "status": {"circuit": {"state": "closed", "reason": ""}}},
        {"metadata": {"name": "new"}},
    ]
    (finding,) = check_circuits(profiles)
    assert (finding.level, finding.message) == (
        Level.WARN,
        "broken receives no tasks of namespaces lab for now (open): UnexpectedAdmissionError: GPU is lost",
    )
