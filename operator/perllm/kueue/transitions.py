"""What a task's controller writes into the conditions of its Workload, as patches of its status.

    ready     PodsReady                                       the task runs; Kueue may wait for it (waitForPodsReady)
    release   QuotaReserved, Admitted false; Requeued         an evicted task has stopped, so its quota is free
    finish    Finished                                        the task has ended, so its quota is free for good

A patch holds the version of the Workload that it was made from: it fails if Kueue has changed it meanwhile, and is made
again from what is seen then.
"""

from perllm.cluster.client import Object
from perllm.cluster.shapes import as_text
from perllm.cluster.times import to_time
from perllm.kueue.workload import ADMITTED, EVICTED, FINISHED, PODS_READY, QUOTA_RESERVED, REQUEUED, TaskWorkload

REQUEUED_AFTER = ("Preempted", "NodeFailures")
"""Reasons of evictions after which a Workload is queued again at once; after any other Kueue decides when."""


def build_ready(workload: TaskWorkload, now_s: float) -> Object:
    """Return the patch which says that the task runs."""
    return _patch(workload, now_s, (PODS_READY, True, "Started", "The task runs"))


def build_release(workload: TaskWorkload, now_s: float) -> Object:
    """Return the patch which gives back the quota of an evicted task that has stopped."""
    eviction = workload.find(EVICTED)
    reason, message = as_text(eviction.get("reason")) or "Pending", as_text(eviction.get("message"))
    patch = _patch(
        workload,
        now_s,
        (QUOTA_RESERVED, False, "Pending", message),
        (ADMITTED, False, "NoReservation", "The workload has no reservation"),
        (REQUEUED, reason in REQUEUED_AFTER, reason, message),
        (PODS_READY, False, "WaitForStart", "The task does not run"),
    )
    patch["status"]["admission"] = None
    return patch


def build_finish(workload: TaskWorkload, reason: str, message: str, now_s: float) -> Object:
    """Return the patch which says that the task has ended."""
    return _patch(workload, now_s, (FINISHED, True, reason, message))


def _patch(workload: TaskWorkload, now_s: float, *changes: tuple[str, bool, str, str]) -> Object:
    conditions = {as_text(one.get("type")): one for one in workload.conditions}
    for kind, value, reason, message in changes:
        old, status = conditions.get(kind, {}), "True" if value else "False"
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        conditions[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since or to_time(int(now_s)).isoformat().replace("+00:00", "Z"),
        }
    metadata = {"resourceVersion": workload.version}
    return {"metadata": metadata, "status": {"conditions": list(conditions.values())}}
