"""Objects of a small cluster, as the API server returns them."""

from typing import Any

from perllm.cluster.times import format_time

NOW_S = 1_000_000.0

Object = dict[str, Any]


def make_node(name: str, *, gpus: str | None = "4", taints: bool = True, ready: str = "True", **labels: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {label.replace("__", "/"): value for label, value in labels.items()},
        },
        "spec": {"taints": [{"key": "perllm.io/only", "effect": "NoSchedule"}]} if taints else {},
        "status": {
            "allocatable": {} if gpus is None else {"nvidia.com/gpu": gpus},
            "addresses": [{"address": f"10.0.0.{len(name)}"}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def make_own_pod(*, ready: tuple[str, ...] = ("operator", "scheduler"), **status: Any) -> Object:
    statuses = [
        {"name": name, "ready": name in ready, "restartCount": 0, "state": {}, **status.get(name, {})}
        for name in ("operator", "scheduler")
    ]
    return {
        "metadata": {"name": "perllm-1", "namespace": "perllm-system"},
        "spec": {"containers": [{"name": "operator"}, {"name": "scheduler"}], "serviceAccountName": "perllm"},
        "status": {"containerStatuses": statuses},
    }


def make_item(name: str, *, age_s: float, **fields: Any) -> Object:
    """Return a task or a pod that was created some seconds before NOW_S."""
    metadata = {"name": name, "namespace": "a", "creationTimestamp": format_time(NOW_S - age_s)}
    return {"metadata": metadata, "spec": {}, **fields}
