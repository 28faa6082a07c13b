"""What is understood of devices and claims."""

from typing import Any

import pytest

from perllm.cluster.devices import DeviceSelection, find_complete, list_devices, read_claim, read_slice
from perllm.cluster.node import NodeLabels, add_devices, read_node
from perllm.settings.nodes import DeviceSettings, NodeSettings
from unit.cluster.device_objects import (
    DRIVER,
    GPUS,
    claim_object,
    gpu,
    make_allocated,
    make_slice,
    request,
    slice_object,
)
from unit.cluster.test_reading import node_object


class TestSlice:
    def test_has_the_devices_that_are_selected_with_their_type_as_labels_write_it(self) -> None:
        read = read_slice(slice_object("a", gpu("0"), gpu("1", kind="mig")), [GPUS])
        assert read is not None
        (device,) = read.devices
        assert (device.id, device.node, device.resource) == ((DRIVER, "a", "0"), "a", DRIVER)
        assert device.gpu_type == "NVIDIA-A100-SXM4-80GB"

    def test_counts_a_device_for_the_first_selection_that_it_matches(self) -> None:
        slices = DeviceSelection("mig.nvidia.com", DRIVER, {"type": "mig"})
        read = read_slice(slice_object("a", gpu("0"), gpu("1", kind="mig")), [GPUS, slices])
        assert read is not None
        assert [one.resource for one in read.devices] == [DRIVER, "mig.nvidia.com"]

    def test_has_units_of_the_extended_resource_by_which_pods_may_ask_for_them(self) -> None:
        settings = NodeSettings(
            devices=(DeviceSettings(device_class=DRIVER, driver=DRIVER, extended_resource="nvidia.com/gpu"),),
            gpu_resources=("amd.com/gpu",),
        )
        read = read_slice(slice_object("a", gpu("0")), settings.selections)
        assert read is not None
        assert [one.resource for one in read.devices] == ["nvidia.com/gpu"]
        assert settings.resources == ("amd.com/gpu", "nvidia.com/gpu")

    def test_of_another_driver_is_none(self) -> None:
        assert read_slice(slice_object("a", gpu("0"), driver="nic.example.com"), [GPUS]) is None

    def test_is_without_devices_that_a_taint_keeps_pods_off(self) -> None:
        broken = gpu("0", taints=[{"key": "unhealthy", "effect": "NoSchedule"}])
        watched = gpu("1", taints=[{"key": "old", "effect": "None"}])
        read = read_slice(slice_object("a", broken, watched), [GPUS])
        assert read is not None
        assert [one.id[2] for one in read.devices] == ["1"]


class TestPool:
    def test_is_complete_once_all_slices_of_its_newest_generation_are_there(self) -> None:
        old = make_slice("a", "0", name="old", generation=1)
        first, second = (make_slice("a", one, name=one, generation=2, total=2) for one in ("1", "2"))
        assert find_complete([old, first]) is None
        found = find_complete([old, first, second])
        assert found is not None
        assert [one.id[2] for one in found] == ["1", "2"]

    def test_is_one_of_a_driver_and_a_name(self) -> None:
        found = list_devices([make_slice("a", "0", "1"), make_slice("b", "0"), make_slice("c", "0", total=2)])
        assert {node: len(devices) for node, devices in found.items()} == {"a": 2, "b": 1}


class TestClaim:
    @pytest.mark.parametrize(
        ("requests", "counts"),
        [
            ([request()], {DRIVER: 1}),
            ([request(2), request(3)], {DRIVER: 5}),
            ([request(1), request(1, "mig.nvidia.com")], {DRIVER: 1, "mig.nvidia.com": 1}),
            ([{"firstAvailable": [{"deviceClassName": DRIVER, "count": 2}, {"deviceClassName": "x"}]}], {DRIVER: 2}),
            ([{"exactly": {"deviceClassName": DRIVER, "adminAccess": True}}], {}),
        ],
        ids=["one", "several", "classes", "alternatives", "of an administrator"],
    )
    def test_asks_for_devices_by_class(self, requests: list[dict[str, Any]], counts: dict[str, int]) -> None:
        assert read_claim(claim_object("c", *requests)).counts == counts

    def test_is_made_of_a_template(self) -> None:
        template = claim_object("t")
        template["spec"] = {"spec": claim_object("c", request(2))["spec"]}
        assert read_claim(template, is_template=True).counts == {DRIVER: 2}

    def test_of_an_administrator_takes_nothing(self) -> None:
        assert make_allocated("c", "a", "0").devices == {(DRIVER, "a", "0")}
        assert make_allocated("c", "a", "0", adminAccess=True).devices == frozenset()

    @pytest.mark.parametrize("part", [None, [], "x", {"devices": 3}, {"devices": {"requests": [None, {"exactly": 1}]}}])
    def test_that_is_malformed_asks_for_nothing_that_counts(self, part: Any) -> None:
        item = {"metadata": {"name": "c", "namespace": "lab"}, "spec": part, "status": part}
        assert DRIVER not in read_claim(item).counts


class TestNodeWithDevices:
    LABELS = NodeLabels(devices=(GPUS,))

    def test_has_a_slot_and_a_gpu_for_each(self) -> None:
        node = read_node(node_object(labels={"perllm.io/tier": "edge", "perllm.io/slots": "9"}, gpus="0"), self.LABELS)
        assert node is not None
        equipped = add_devices(node, make_slice("n", "0", "1").devices)
        assert equipped is not None
        assert (equipped.resources, equipped.slots, equipped.gpus) == ({DRIVER: 2.0}, 2.0, 2.0)
        assert (equipped.gpu_type, equipped.claimed) == ("NVIDIA-A100-SXM4-80GB", {DRIVER})

    def test_keeps_the_type_of_its_label(self) -> None:
        node = read_node(node_object(gpus="0"), self.LABELS)
        assert node is not None
        equipped = add_devices(node, make_slice("n", "0").devices)
        assert equipped is not None
        assert equipped.gpu_type == "T4"

    def test_is_none_of_the_fleet_without_a_slot(self) -> None:
        node = read_node(node_object(gpus="0"), self.LABELS)
        assert node is not None
        assert add_devices(node, ()) is None
