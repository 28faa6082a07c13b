from typing import Literal

import pytest

from perllm.config import Config
from perllm.doctor.finding import Level
from perllm.doctor.rights import Access, Account, OutsideUser, build_review, check_rights, list_needed
from perllm.settings.nodes import DeviceSettings, NodeSettings
from perllm.settings.tasks import AgentSettings

ACCOUNT = Account("home", "perllm")


def test_everything_of_the_roles_is_needed_where_the_tasks_are() -> None:
    needed = list_needed(Config(namespaces=("a", "b"), leader_lease="turns"), "home")
    assert Access("list", "", "nodes") in needed
    assert {Access("create", "", "pods/binding", place) for place in ("a", "b")} <= set(needed)
    assert Access("create", "", "pods/binding") not in needed
    assert Access("get", "coordination.k8s.io", "leases", "home", "turns") in needed


def test_without_namespaces_tasks_are_needed_everywhere_and_no_lease() -> None:
    needed = list_needed(Config(), "home")
    assert Access("create", "", "pods/binding") in needed
    assert not [access for access in needed if access.resource == "leases"]


def test_with_agents_their_leases_and_servers_are_watched() -> None:
    needed = list_needed(Config(agents=AgentSettings(lease_namespace="agents")), "home")
    assert Access("watch", "perllm.io", "llmnodeservers") in needed
    assert Access("watch", "coordination.k8s.io", "leases", "agents") in needed


@pytest.mark.parametrize(("mode", "needs_claims"), [("active", True), ("shadow", False)])
def test_with_devices_they_are_watched_and_in_active_mode_claims(
    mode: Literal["active", "shadow"], needs_claims: bool
) -> None:
    devices = (DeviceSettings(device_class="gpu", driver="gpu.example.com"),)
    needed = list_needed(Config(mode=mode, nodes=NodeSettings(devices=devices)), "home")
    assert Access("watch", "resource.k8s.io", "resourceslices") in needed
    assert (Access("list", "resource.k8s.io", "resourceclaims") in needed) is needs_claims


def test_in_shadow_mode_pods_are_only_watched() -> None:
    needed = list_needed(Config(mode="shadow", namespaces=("a",)), "home")
    assert [access for access in needed if access.resource.startswith(("pods", "llminferencetasks"))] == [
        Access("list", "", "pods", "a"),
        Access("watch", "", "pods", "a"),
    ]


def test_whoever_asks_asks_about_himself() -> None:
    path, body = build_review(Access("create", "", "pods/binding", "a"), None)
    assert path.endswith("/selfsubjectaccessreviews")
    assert body["spec"] == {
        "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "a"}
    }


def test_an_administrator_asks_about_the_service_account() -> None:
    path, body = build_review(Access("list", "", "nodes"), ACCOUNT)
    assert path.endswith("/subjectaccessreviews")
    assert body["spec"]["user"] == "system:serviceaccount:home:perllm"
    assert "system:serviceaccounts:home" in body["spec"]["groups"]


def test_missing_rights_are_named() -> None:
    answers = {Access("list", "", "nodes"): True, Access("create", "", "pods/binding", "a"): False}
    finding = check_rights(answers, ACCOUNT.user)
    assert finding.level is Level.FAIL
    assert "home:perllm may not create pods/binding in a" in finding.message
    assert check_rights(dict.fromkeys(answers, True), "x").level is Level.OK


def test_an_operator_outside_of_the_cluster_is_reviewed_as_its_user() -> None:
    _, review = build_review(Access("list", "", "nodes"), OutsideUser("perllm"))
    assert (review["spec"]["user"], review["spec"]["groups"]) == ("perllm", ["system:authenticated"])
