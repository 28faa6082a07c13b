"""The least rights with which the operator, its private kube-scheduler and the agents of the nodes work.

Rules about nodes apply to the whole cluster, since nodes belong to no namespace. Rules about tasks apply to the whole
cluster or, if the operator serves only some namespaces, to those. kube-scheduler reads pods everywhere in either case,
because the free resources of a node depend on all of them.

All agents have the same account. RBAC knows neither their nodes nor field selectors, so what they write is confined to
their own node by an admission policy (`agent_policy`), and what they read is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perllm.api import names

Rule = dict[str, Any]
Subject = dict[str, Any]

RBAC_GROUP = "rbac.authorization.k8s.io"
LEASE_GROUP = "coordination.k8s.io"
KUEUE_GROUP = "kueue.x-k8s.io"
NODES_ROLE = "perllm-nodes"
TASKS_ROLE = "perllm-tasks"
LEASE_ROLE = "perllm-lease"
QUOTA_ROLE = "perllm-quota"
WORKLOADS_ROLE = "perllm-workloads"
SERVERS_ROLE = "perllm-servers"
AGENT_LEASES_ROLE = "perllm-agent-leases"
AGENT_ROLE = "perllm-agent"
AGENT_TASKS_ROLE = "perllm-agent-tasks"
AGENT_SERVERS_ROLE = "perllm-agent-servers"
AGENT_OWN_LEASES_ROLE = "perllm-agent-own-leases"
SCHEDULER_LEASE_ROLE = "perllm-scheduler-lease"
DEVICES_ROLE = "perllm-devices"
SCHEDULER_ROLES = ("system:kube-scheduler", "system:volume-scheduler")


def node_rules() -> list[Rule]:
    """Return the operator's rights to cluster-scoped objects."""
    return [
        _rule("", ["nodes"], "list", "watch"),
        _rule(names.GROUP, [names.NODE_PROFILE_PLURAL], "list", "watch", "create"),
        _rule(names.GROUP, [f"{names.NODE_PROFILE_PLURAL}/status"], "patch"),
    ]


def task_rules() -> list[Rule]:
    """Return the operator's rights in the namespaces that it serves."""
    return [
        _rule(names.GROUP, [names.TASK_PLURAL], "list", "watch", "delete"),
        _rule(names.GROUP, [f"{names.TASK_PLURAL}/status"], "patch"),
        _rule("", ["pods"], "list", "watch", "create", "delete"),
        _rule("", ["pods/status"], "patch"),
        _rule("", ["pods/binding"], "create"),
        _rule("", ["resourcequotas"], "list", "watch"),
        _rule("events.k8s.io", ["events"], "create"),
    ]


def namespace_rules() -> list[Rule]:
    """Return the additional rights of an operator that serves all namespaces."""
    return [_rule("", ["namespaces"], "list", "watch")]


def quota_rules() -> list[Rule]:
    """Return the operator's rights to see which nodes quota of Kueue is for, and what its priorities are."""
    return [_rule(KUEUE_GROUP, ["resourceflavors", "workloadpriorityclasses"], "list", "watch")]


def workload_rules() -> list[Rule]:
    """Return the operator's rights to ask Kueue for the quota of tasks, and to give it back."""
    return [
        _rule(KUEUE_GROUP, ["workloads"], "list", "watch", "create"),
        _rule(KUEUE_GROUP, ["workloads/status"], "patch"),
    ]


def device_rules() -> list[Rule]:
    """Return the operator's rights to see devices."""
    return [_rule(names.DEVICE_GROUP, ["resourceslices"], "list", "watch")]


def claim_rules() -> list[Rule]:
    """Return the operator's rights to see who has devices: claims of all namespaces, since their pods share nodes."""
    return [_rule(names.DEVICE_GROUP, ["resourceclaims", "resourceclaimtemplates"], "list", "watch")]


def shadow_rules() -> list[Rule]:
    """Return the rights of an operator in shadow mode in the namespaces whose pods it compares."""
    return [_rule("", ["pods"], "list", "watch")]


def lease_rules(lease: str) -> list[Rule]:
    """Return the operator's rights in its own namespace to follow a Lease, and to give it up."""
    return [_rule(LEASE_GROUP, ["leases"], "get", "patch", only=lease)]


def server_rules() -> list[Rule]:
    """Return the operator's rights to see the model servers of nodes."""
    return [_rule(names.GROUP, [names.NODE_SERVER_PLURAL], "list", "watch")]


def agent_lease_rules() -> list[Rule]:
    """Return the operator's rights in the namespace of the agents' Leases, to see which agents are alive."""
    return [_rule(LEASE_GROUP, ["leases"], "list", "watch")]


def agent_rules() -> list[Rule]:
    """Return the agents' rights to cluster-scoped objects; a node owns the object about its model servers."""
    return [
        _rule("", ["nodes"], "get"),
        _rule(names.GROUP, [names.NODE_SERVER_PLURAL], "create"),
        _rule(names.GROUP, [f"{names.NODE_SERVER_PLURAL}/status"], "patch"),
    ]


def agent_task_rules() -> list[Rule]:
    """Return the agents' rights in the namespaces whose tasks are served."""
    return [
        _rule(names.GROUP, [names.TASK_PLURAL], "list", "watch"),
        _rule(names.GROUP, [f"{names.TASK_PLURAL}/status"], "patch"),
        _rule(names.GROUP, [names.TASK_ANSWER_PLURAL], "create"),
    ]


def agent_server_rules() -> list[Rule]:
    """Return the agents' rights in the namespaces where they look for the pods of model servers."""
    return [_rule("", ["pods"], "list", "watch")]


def agent_own_lease_rules() -> list[Rule]:
    """Return the agents' rights in the namespace of their Leases."""
    return [_rule(LEASE_GROUP, ["leases"], "create", "patch")]


def scheduler_lease_rules(lease: str) -> list[Rule]:
    """Return kube-scheduler's rights to the Lease, in addition to its own role, which lets it create any Lease."""
    return [_rule(LEASE_GROUP, ["leases"], "get", "update", only=lease)]


def build_manifests(
    operator: Subject,
    scheduler: Subject,
    *,
    namespaces: Sequence[str] = (),
    namespace: str = "",
    lease: str = "",
    agent_namespace: str = "",
    has_queues: bool = False,
    has_devices: bool = False,
) -> list[dict[str, Any]]:
    """Return roles and bindings for two RBAC subjects, the operator and its kube-scheduler.

    Args:
        operator: the operator.
        scheduler: its kube-scheduler.
        namespaces: namespaces whose tasks are served; all if empty.
        namespace: namespace of both, and of the Lease.
        lease: name of the Lease that decides which of several replicas is active; empty for a single replica.
        agent_namespace: namespace of the agents' Leases; empty if there are no agents.
        has_queues: whether tasks may be in queues of Kueue.
        has_devices: whether devices are slots.
    """
    manifests = _grant(NODES_ROLE, node_rules(), operator)
    for place in namespaces:
        manifests += _grant(TASKS_ROLE, task_rules(), operator, place)
    if not namespaces:
        manifests += _grant(TASKS_ROLE, task_rules() + namespace_rules(), operator)
    if has_devices:
        manifests += _grant(DEVICES_ROLE, device_rules() + claim_rules(), operator)
    if agent_namespace:
        manifests += _grant(SERVERS_ROLE, server_rules(), operator)
        manifests += _grant(AGENT_LEASES_ROLE, agent_lease_rules(), operator, agent_namespace)
    if has_queues:
        manifests += _grant(QUOTA_ROLE, quota_rules(), operator)
        for place in namespaces or ("",):
            manifests += _grant(WORKLOADS_ROLE, workload_rules(), operator, place)
    for role in SCHEDULER_ROLES:
        manifests.append(_bind(f"perllm-{role.removeprefix('system:')}", "ClusterRole", role, scheduler))
    if lease:
        manifests += _grant(LEASE_ROLE, lease_rules(lease), operator, namespace)
        manifests += _grant(SCHEDULER_LEASE_ROLE, scheduler_lease_rules(lease), scheduler, namespace)
    return manifests


def build_shadow_manifests(
    operator: Subject, *, namespaces: Sequence[str] = (), has_devices: bool = False
) -> list[dict[str, Any]]:
    """Return roles and bindings for an operator in shadow mode, which has neither a kube-scheduler nor agents.

    Args:
        operator: the operator.
        namespaces: namespaces whose pods it compares; all if empty.
        has_devices: whether devices are slots.
    """
    manifests = _grant(NODES_ROLE, node_rules(), operator)
    if has_devices:
        manifests += _grant(DEVICES_ROLE, device_rules(), operator)
    for place in namespaces or ("",):
        manifests += _grant(TASKS_ROLE, shadow_rules(), operator, place)
    return manifests


def build_agent_manifests(
    agent: Subject, lease_namespace: str, *, server_namespaces: Sequence[str], namespaces: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return roles and bindings for an RBAC subject, the account of all agents.

    Args:
        agent: the account.
        lease_namespace: namespace of the agents' Leases.
        server_namespaces: namespaces of the pods of model servers.
        namespaces: namespaces whose tasks are served; all if empty.
    """
    manifests = _grant(AGENT_ROLE, agent_rules(), agent)
    for place in namespaces or ("",):
        manifests += _grant(AGENT_TASKS_ROLE, agent_task_rules(), agent, place)
    for place in server_namespaces:
        manifests += _grant(AGENT_SERVERS_ROLE, agent_server_rules(), agent, place)
    return manifests + _grant(AGENT_OWN_LEASES_ROLE, agent_own_lease_rules(), agent, lease_namespace)


def collection_path(manifest: Mapping[str, Any]) -> str:
    """Return the API path under which one of these objects is created."""
    namespace = manifest["metadata"].get("namespace")
    place = f"namespaces/{namespace}/" if namespace else ""
    kind = manifest["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"/apis/{manifest['apiVersion']}/{place}{plural}"


def _grant(name: str, rules: list[Rule], subject: Subject, namespace: str = "") -> list[dict[str, Any]]:
    """Return a role and its binding, in a namespace, or for the cluster if that is empty."""
    kind = "Role" if namespace else "ClusterRole"
    role = {"apiVersion": f"{RBAC_GROUP}/v1", "kind": kind, "metadata": _metadata(name, namespace), "rules": rules}
    return [role, _bind(name, kind, name, subject, namespace)]


def _bind(name: str, kind: str, role: str, subject: Subject, namespace: str = "") -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": kind, "name": role},
        "subjects": [subject],
    }


def _metadata(name: str, namespace: str) -> dict[str, str]:
    return {"name": name, "namespace": namespace} if namespace else {"name": name}


def _rule(group: str, resources: Iterable[str], *verbs: str, only: str = "") -> Rule:
    rule: Rule = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    return {**rule, "resourceNames": [only]} if only else rule
