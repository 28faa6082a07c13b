from typing import Any

import pytest

from perllm.cluster.agent_policy import build_agent_policies
from perllm.cluster.authors import build_author_policy
from perllm.cluster.rbac import (
    agent_lease_rules,
    agent_own_lease_rules,
    agent_rules,
    agent_server_rules,
    agent_task_rules,
    build_agent_manifests,
    build_manifests,
    build_shadow_manifests,
    collection_path,
    lease_rules,
    namespace_rules,
    node_rules,
    quota_rules,
    scheduler_lease_rules,
    server_rules,
    shadow_rules,
    task_rules,
    workload_rules,
)
from perllm.cluster.release_policy import build_release_policy

OPERATOR = {"kind": "ServiceAccount", "name": "operator", "namespace": "home"}
SCHEDULER = {"kind": "ServiceAccount", "name": "scheduler", "namespace": "home"}
AGENT = {"kind": "ServiceAccount", "name": "agent", "namespace": "home"}


def place_of(manifest: dict[str, Any]) -> tuple[str, str, str | None]:
    return manifest["kind"], manifest["metadata"]["name"], manifest["metadata"].get("namespace")


def granted(manifests: list[dict[str, Any]], who: dict[str, str], namespace: str | None) -> list[dict[str, Any]]:
    """Return all rules that the subject has in exactly this namespace, or in the cluster."""
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in manifests
        if "subjects" in one and one["subjects"] == [who] and one["metadata"].get("namespace") == namespace
    }
    roles = [one for one in manifests if "rules" in one and one["metadata"].get("namespace") == namespace]
    return [rule for one in roles if (one["kind"], one["metadata"]["name"]) in bound for rule in one["rules"]]


def test_tasks_of_all_namespaces_need_rights_in_the_cluster_only() -> None:
    manifests = build_manifests(OPERATOR, SCHEDULER)
    assert granted(manifests, OPERATOR, None) == node_rules() + task_rules() + namespace_rules()
    assert {one["metadata"].get("namespace") for one in manifests} == {None}


def test_with_namespaces_nothing_about_tasks_may_be_done_elsewhere() -> None:
    manifests = build_manifests(OPERATOR, SCHEDULER, namespaces=["a", "b"])
    assert granted(manifests, OPERATOR, None) == node_rules()
    assert granted(manifests, OPERATOR, "a") == granted(manifests, OPERATOR, "b") == task_rules()


@pytest.mark.parametrize("namespaces", [(), ("a", "b")])
def test_in_shadow_mode_only_profiles_are_written(namespaces: tuple[str, ...]) -> None:
    manifests = build_shadow_manifests(OPERATOR, namespaces=namespaces)
    writes = {
        (resource, verb)
        for place in (None, *namespaces)
        for rule in granted(manifests, OPERATOR, place)
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("list", "watch")
    }
    assert writes == {("llmnodeprofiles", "create"), ("llmnodeprofiles/status", "patch")}
    assert granted(manifests, OPERATOR, namespaces[0] if namespaces else None)[-1] == shadow_rules()[0]


def test_the_lease_is_read_and_given_up_by_the_operator_and_renewed_by_its_scheduler() -> None:
    manifests = build_manifests(OPERATOR, SCHEDULER, namespace="home", lease="turns")
    assert granted(manifests, OPERATOR, "home") == lease_rules("turns")
    assert granted(manifests, SCHEDULER, "home") == scheduler_lease_rules("turns")
    assert {tuple(rule["resourceNames"]) for rule in lease_rules("turns") + scheduler_lease_rules("turns")} == {
        ("turns",)
    }


def test_the_scheduler_has_the_roles_of_every_kube_scheduler_wherever_tasks_are() -> None:
    for namespaces in ((), ("a",)):
        manifests = build_manifests(OPERATOR, SCHEDULER, namespaces=namespaces)
        bound = {one["roleRef"]["name"] for one in manifests if one.get("subjects") == [SCHEDULER]}
        assert bound == {"system:kube-scheduler", "system:volume-scheduler"}


def test_the_operator_watches_agents_only_where_there_may_be_some() -> None:
    manifests = build_manifests(OPERATOR, SCHEDULER, namespaces=["a"], namespace="home", agent_namespace="agents")
    assert granted(manifests, OPERATOR, None) == node_rules() + server_rules()
    assert granted(manifests, OPERATOR, "agents") == agent_lease_rules()


def test_with_queues_the_operator_asks_for_quota_where_it_serves_tasks_and_only_reads_what_it_is_for() -> None:
    manifests = build_manifests(OPERATOR, SCHEDULER, namespaces=["a"], has_queues=True)
    assert granted(manifests, OPERATOR, None) == node_rules() + quota_rules()
    assert granted(manifests, OPERATOR, "a") == task_rules() + workload_rules()


def test_agents_of_an_operator_that_serves_all_namespaces_find_tasks_everywhere() -> None:
    manifests = build_agent_manifests(AGENT, "home", server_namespaces=["home"])
    assert granted(manifests, AGENT, None) == agent_rules() + agent_task_rules()
    assert granted(manifests, AGENT, "home") == agent_server_rules() + agent_own_lease_rules()


def test_agents_have_rights_to_tasks_and_pods_only_in_the_namespaces_listed_for_each() -> None:
    manifests = build_agent_manifests(AGENT, "home", namespaces=["a"], server_namespaces=["servers"])
    assert granted(manifests, AGENT, None) == agent_rules()
    assert granted(manifests, AGENT, "a") == agent_task_rules()
    assert granted(manifests, AGENT, "servers") == agent_server_rules()
    assert granted(manifests, AGENT, "home") == agent_own_lease_rules()


@pytest.mark.parametrize(
    "rules",
    [
        node_rules(),
        task_rules(),
        namespace_rules(),
        shadow_rules(),
        lease_rules("x"),
        scheduler_lease_rules("x"),
        server_rules(),
        agent_lease_rules(),
        agent_rules(),
        agent_task_rules(),
        agent_server_rules(),
        agent_own_lease_rules(),
        quota_rules(),
        workload_rules(),
    ],
)
def test_no_rule_says_everything_or_reaches_secrets(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"secrets", "configmaps", "serviceaccounts", "pods/exec"} & set(rule["resources"])


def test_every_object_tells_where_it_is_created() -> None:
    rights = build_manifests(OPERATOR, SCHEDULER, namespaces=["a"], namespace="home", lease="turns")
    rights += build_agent_manifests(AGENT, "home", namespaces=["a"], server_namespaces=["a"])
    policies = [*build_author_policy(), *build_release_policy("operator"), *build_agent_policies("agent")]
    manifests = [*rights, *policies]
    paths = {collection_path(one) for one in manifests}
    assert paths == {
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/home/roles",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/home/rolebindings",
    }
    assert len({place_of(one) for one in manifests}) == len(manifests)
