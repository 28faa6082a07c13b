"""The least that the operator and its private kube-scheduler may do."""

from typing import Any

from perllm.api import names

OPERATOR_ROLE = "perllm-operator"


def operator_cluster_role() -> dict[str, Any]:
    """Return the operator's ClusterRole."""
    own = [names.GROUP]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": OPERATOR_ROLE},
        "rules": [
            _rule(own, [names.TASK_PLURAL], "get", "list", "watch", "delete"),
            _rule(own, [f"{names.TASK_PLURAL}/status"], "patch"),
            _rule(own, [names.NODE_PROFILE_PLURAL], "get", "list", "create"),
            _rule(own, [f"{names.NODE_PROFILE_PLURAL}/status"], "patch"),
            _rule([""], ["pods"], "get", "list", "watch", "create", "delete"),
            _rule([""], ["pods/binding"], "create"),
            _rule([""], ["nodes"], "get", "list", "watch"),
            _rule(["events.k8s.io"], ["events"], "create"),
        ],
    }


def cluster_role_bindings(operator_user: dict[str, Any], scheduler_user: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ClusterRoleBindings of two RBAC subjects: the operator and its kube-scheduler."""
    return [
        _binding(OPERATOR_ROLE, OPERATOR_ROLE, operator_user),
        _binding("perllm-scheduler", "system:kube-scheduler", scheduler_user),
        _binding("perllm-scheduler-volumes", "system:volume-scheduler", scheduler_user),
    ]


def _rule(groups: list[str], resources: list[str], *verbs: str) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": list(verbs)}


def _binding(name: str, role: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }
