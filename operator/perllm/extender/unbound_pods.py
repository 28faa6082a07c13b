"""Counts the pods that have no node yet, by what kube-scheduler has said about them last.

One that does not run, or has no profile of this name, says nothing, so a pod that waits for it looks like one that was
just created; only its age shows the difference.
"""

from collections.abc import Callable
from enum import StrEnum

from perllm.cluster.pod import Pod

PATIENCE_S = 60.0
"""kube-scheduler says something about a pod within seconds, also if it finds no node for it."""


class SchedulerAnswer(StrEnum):
    """What kube-scheduler has said about a pod; the reason of its condition PodScheduled, if there is one."""

    AWAITED = "Awaited"
    MISSING = "Missing"
    UNSCHEDULABLE = "Unschedulable"
    ERROR = "SchedulerError"
    GATED = "SchedulingGated"
    OTHER = "Other"


_REASONS = (SchedulerAnswer.UNSCHEDULABLE, SchedulerAnswer.ERROR, SchedulerAnswer.GATED)


class UnboundPods:
    """The pods without a node.

    Args:
        unix_now: wall clock.
    """

    def __init__(self, unix_now: Callable[[], float]) -> None:
        self._unix_now = unix_now
        self._pods: dict[str, Pod] = {}

    def note(self, old: Pod | None, new: Pod | None) -> None:
        """Note that a pod was added, changed or deleted."""
        if old is not None:
            self._pods.pop(old.uid, None)
        if new is not None and new.node is None and not (new.is_finished or new.is_deleting):
            self._pods[new.uid] = new

    def count(self, answer: SchedulerAnswer) -> int:
        """Return about how many of them kube-scheduler has said this."""
        now_s = self._unix_now()
        return sum(_find_answer(pod, now_s) is answer for pod in self._pods.values())


def _find_answer(pod: Pod, now_s: float) -> SchedulerAnswer:
    if pod.wait_reason:
        return next((reason for reason in _REASONS if reason == pod.wait_reason), SchedulerAnswer.OTHER)
    is_late = pod.created_s is not None and now_s >= pod.created_s + PATIENCE_S
    return SchedulerAnswer.MISSING if is_late else SchedulerAnswer.AWAITED
