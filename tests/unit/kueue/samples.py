"""Workloads as the API server has them."""

from typing import Any

from perllm.cluster.client import Object
from perllm.kueue.workload import QueuedTask, TaskWorkload, build_workload, read_workload

SINCE = "1970-01-01T00:10:00Z"
EDGE = {"tier": "edge"}


def make_queued(name: str = "t", **fields: Any) -> QueuedTask:
    template = {"spec": {"containers": [{"name": "llm", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}
    values = {"queue": "team", "priority": 0, "priority_class": "", "template": template, **fields}
    return QueuedTask(namespace="lab", name=name, uid=f"uid-{name}", **values)


def workload_object(
    conditions: dict[str, bool] | None = None,
    *,
    version: str = "7",
    reason: str = "Any",
    messages: dict[str, str] | None = None,
    **status: Any,
) -> Object:
    """Return the Workload of task t with these conditions, all for the same reason."""
    item = build_workload(make_queued())
    item["metadata"] |= {"uid": "uid-w", "resourceVersion": version}
    said = messages or {}
    item["status"] = {
        "conditions": [
            {
                "type": kind,
                "status": "True" if value else "False",
                "reason": reason,
                "message": said.get(kind, ""),
                "lastTransitionTime": SINCE,
            }
            for kind, value in (conditions or {}).items()
        ],
        **status,
    }
    return item


def make_workload(conditions: dict[str, bool] | None = None, **fields: Any) -> TaskWorkload:
    workload = read_workload(workload_object(conditions, **fields))
    assert workload is not None
    return workload


def admit(*flavors: str, **fields: Any) -> TaskWorkload:
    """Return an admitted Workload with quota of these flavors."""
    assigned = [{"name": "main", "flavors": {f"resource-{flavor}": flavor for flavor in flavors}}]
    conditions = {"QuotaReserved": True, "Admitted": True, "Evicted": False}
    return make_workload(conditions, admission={"clusterQueue": "q", "podSetAssignments": assigned}, **fields)


def evict(reason: str = "Preempted") -> TaskWorkload:
    conditions = {"QuotaReserved": True, "Admitted": True, "Evicted": True}
    return make_workload(conditions, reason=reason, messages={"Evicted": "Preempted to make room"})
