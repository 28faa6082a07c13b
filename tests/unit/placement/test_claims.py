"""How many devices the claims of a pod ask for, and what that means for its place."""

from dataclasses import replace
from typing import Any

import pytest

from perllm.cluster.devices import read_claim
from perllm.placement import claims
from perllm.placement.claims import ClaimSizes
from perllm.placement.demand import read_demand
from perllm.placement.fleet import Bandwidth
from unit.cluster.device_objects import DRIVER, GPUS, claim_object, request
from unit.placement.cluster_of import make_node, make_request, make_setting

GPU = "nvidia.com/gpu"
BY_TEMPLATE = {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "c"}]}
BY_NAME = {"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}


def put(sizes: ClaimSizes, *requests: dict[str, Any], is_template: bool = True) -> bool:
    return sizes.put(replace(read_claim(claim_object("c", *requests)), is_template=is_template))


class TestSize:
    def test_is_that_of_the_template_or_the_claim_that_is_named(self) -> None:
        sizes = ClaimSizes([GPUS])
        put(sizes, request(2))
        put(sizes, request(3), is_template=False)
        assert sizes.find("lab", BY_TEMPLATE) == (DRIVER, 2.0)
        assert sizes.find("lab", BY_NAME) == (DRIVER, 3.0)

    def test_is_that_of_the_claim_that_was_made_from_a_template_even_if_the_template_is_gone(self) -> None:
        sizes = ClaimSizes([GPUS])
        status = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c-x"}]}
        put(sizes, request(2))
        assert sizes.find("lab", BY_TEMPLATE, status) == (DRIVER, 2.0)
        sizes.remove(replace(read_claim(claim_object("c")), is_template=True))
        sizes.put(read_claim(claim_object("c-x", request(3))))
        assert sizes.find("lab", BY_TEMPLATE, status) == (DRIVER, 3.0)

    def test_is_none_for_devices_that_are_no_gpus(self) -> None:
        sizes = ClaimSizes([GPUS])
        put(sizes, request(2, "nic.example.com"))
        assert sizes.find("lab", BY_TEMPLATE) == ("", 0.0)

    def test_is_one_until_the_claim_is_known_which_is_noted(self) -> None:
        sizes = ClaimSizes([GPUS])
        assert not put(sizes, request(5), is_template=False)
        assert sizes.find("lab", BY_TEMPLATE) == (DRIVER, 1.0)
        assert put(sizes, request(2))
        assert sizes.find("lab", BY_TEMPLATE) == (DRIVER, 2.0)

    def test_is_not_awaited_of_ever_more_claims_that_are_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claims, "MAX_MISSING", 2)
        sizes = ClaimSizes([GPUS])
        for name in ("a", "b", "a", "c"):
            sizes.find("lab", {"resourceClaims": [{"name": "gpu", "resourceClaimName": name}]})
        late = [sizes.put(read_claim(claim_object(name, request(2)))) for name in ("a", "b", "c")]
        assert late == [True, False, True]

    def test_counts_what_is_asked_for_by_the_resource_of_a_device_class(self) -> None:
        spec = {"containers": [{"resources": {"limits": {f"deviceclass.resource.kubernetes.io/{DRIVER}": "2"}}}]}
        assert ClaimSizes([GPUS]).find("lab", spec) == (DRIVER, 2.0)

    def test_is_of_the_extended_resource_of_the_device_class(self) -> None:
        sizes = ClaimSizes([replace(GPUS, extended_resource=GPU)])
        put(sizes, request(2))
        assert sizes.find("lab", BY_TEMPLATE) == (GPU, 2.0)

    def test_is_none_where_devices_are_no_slots(self) -> None:
        assert ClaimSizes().find("lab", BY_TEMPLATE) == ("", 0.0)

    def test_yields_to_resources_that_the_pod_asks_for(self) -> None:
        spec = {"containers": [{"resources": {"limits": {GPU: 2}}}]}
        assert read_demand(spec, (GPU,), (DRIVER, 4.0)).resource == GPU
        demand = read_demand({}, (GPU,), (DRIVER, 4.0))
        assert (demand.resource, demand.slots) == (DRIVER, 4.0)


class TestForeignDevices:
    NODE = replace(make_node("n", slots=2), resources={DRIVER: 2.0}, claimed=frozenset({DRIVER}))
    DEMAND = read_demand({}, (), (DRIVER, 1.0))

    def test_leave_no_room_for_tasks(self) -> None:
        setting = make_setting(self.NODE)
        for count, has_room in [(1, True), (2, False), (0, True)]:
            setting.fleet.put_foreign("n", {DRIVER: count} if count else {})
            assert (setting.placer.choose(make_request(demand=self.DEMAND)).node == "n") is has_room

    def test_leave_a_node_as_large_as_it_is(self) -> None:
        setting = make_setting(self.NODE)
        setting.fleet.put_foreign("n", {DRIVER: 2.0})
        placement = setting.placer.choose(make_request(demand=self.DEMAND))
        assert not placement.eligibility.is_impossible

    def test_are_known_before_their_node(self) -> None:
        setting = make_setting()
        setting.fleet.put_foreign("n", {DRIVER: 2.0})
        row = setting.learner.register("n", "T4")
        setting.fleet.put(self.NODE, row, Bandwidth(100e6, 0.0))
        assert setting.placer.choose(make_request(demand=self.DEMAND)).node is None
