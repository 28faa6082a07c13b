"""Which pods of tasks may be released: a finalizer retains every pod until what it knows is recorded elsewhere.

Only a pod itself shows how it ended, and it may be deleted at any time: by a user, or by the garbage collector of pods
on lost nodes. As for the Jobs of Kubernetes, a finalizer retains it until the status of its task is stored, and if the
task succeeded until its outcome is part of the stored learned state.
"""

from dataclasses import dataclass

from perllm.api.task_status import TaskPhase, TaskStatus
from perllm.cluster.pod import Pod, PodPhase
from perllm.cluster.pod_ends import MARGIN_S, is_to_replace
from perllm.controller.summary import is_settled


@dataclass(frozen=True, slots=True)
class Records:
    """What is recorded about the task of a pod.

    Attributes:
        status: the task's status; None if the task is gone, or is being deleted.
        is_stored: whether the API server has this status.
        is_learned: whether the task's outcome is part of the stored learned state, or there is nothing to learn.
    """

    status: TaskStatus | None
    is_stored: bool = False
    is_learned: bool = False


def may_release(pod: Pod, records: Records, now_s: float) -> bool:
    """Return whether nothing is lost if a pod vanishes now.

    Args:
        pod: a pod with the finalizer.
        records: what is recorded about its task.
        now_s: Unix time.
    """
    status = records.status
    if status is None:
        return pod.is_finished or pod.is_deleting or pod.node is None
    if not records.is_stored:
        return False
    is_counted = status.attempts >= pod.attempt or (pod.is_deleting and is_to_replace(pod, now_s))
    if not (status.phase.is_final or is_counted):
        return False
    if pod.phase is PodPhase.SUCCEEDED and not status.phase.is_final:
        return False
    if status.phase is TaskPhase.SUCCEEDED and status.pod_name == pod.name:
        return is_settled(status) and records.is_learned
    # Once the task is over, the end of the pod changes nothing any more.
    margin_s = 0.0 if status.phase.is_final else MARGIN_S
    return pod.is_finished or (pod.is_deleting and _has_no_end(pod, now_s - margin_s))


def _has_no_end(pod: Pod, now_s: float) -> bool:
    """Whether a deleted pod should have reported its end by now, if it ever will."""
    if pod.may_run_until_s is not None:
        return False
    return pod.node is None or (pod.gone_by_s is not None and now_s >= pod.gone_by_s)
