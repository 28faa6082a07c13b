"""Releases pods whose ends are recorded: removes the finalizer that retains them."""

import asyncio
from collections.abc import Callable
from functools import partial

from perllm.cluster.pod import Pod
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.retention import Records, may_release
from perllm.controller.status_writer import StatusWriter
from perllm.controller.summary import is_settled
from perllm.controller.tracking import Tracking
from perllm.guard import Guard
from perllm.slices import Slices

INTERVAL_S = 0.5
RETRY_S = 30.0
"""A pod that still has its finalizer this long after its removal is released again."""


class PodReleases:
    """Releases pods that have ended, or are being deleted, once their ends are recorded.

    Args:
        tracking: the tasks.
        writer: knows which statuses are stored.
        outcomes: know what is learned.
        pods: remove the finalizer.
        has_tasks: whether all tasks of a namespace are known at the moment, so that one that is not does not exist.
        guard: contains failures about single pods.
        unix_now: wall clock.
    """

    def __init__(
        self,
        tracking: Tracking,
        writer: StatusWriter,
        outcomes: OutcomeLearner,
        pods: PodKeeper,
        *,
        has_tasks: Callable[[str], bool],
        guard: Guard,
        unix_now: Callable[[], float],
    ) -> None:
        self._tracking = tracking
        self._writer = writer
        self._outcomes = outcomes
        self._pods = pods
        self._has_tasks = has_tasks
        self._guard = guard
        self._unix_now = unix_now
        self._candidates: dict[str, Pod] = {}
        self._released_s: dict[str, float] = {}

    def note(self, pod: Pod, *, is_gone: bool) -> None:
        """Note that a pod was added, changed or deleted.

        One that is reported as gone with the finalizer still on it exists: a client removed the label that it is
        selected by. Its task gets another pod, so it must not run on.
        """
        if is_gone and pod.is_retained:
            self._pods.remove(pod)
        # Most pods are running; those that the operator no longer waits for are being deleted, which is seen.
        may_be_over = pod.is_finished or pod.is_deleting or pod.node is None
        if pod.is_retained and may_be_over and not is_gone:
            self._candidates[pod.uid] = pod
        else:
            self._candidates.pop(pod.uid, None)
            self._released_s.pop(pod.uid, None)

    async def run(self) -> None:
        """Release pods until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._examine_all()

    async def _examine_all(self) -> None:
        slices = Slices()
        for pod in list(self._candidates.values()):
            if self._candidates.get(pod.uid) is pod:
                self._guard.run("release", pod.key, partial(self._examine, pod), again=False)
            await slices.pause()

    def _examine(self, pod: Pod) -> None:
        now_s = self._unix_now()
        if now_s < self._released_s.get(pod.uid, 0.0) + RETRY_S:
            return
        tracked = self._tracking.find(pod.task_key, pod.task_uid)
        if tracked is None and pod.task_uid and not self._is_gone(pod):
            return
        records = Records(None)
        if tracked is not None:
            pod = tracked.pods.get(pod.name, pod)
            if not tracked.task.is_deleting:
                if not (pod.is_finished or pod.is_deleting):
                    return
                # Most pods wait for their energy, so what takes longer to find out comes last.
                is_stored = self._writer.is_stored(pod.task_key)
                is_learned = is_stored and is_settled(tracked.status) and self._outcomes.is_recorded(tracked)
                records = Records(tracked.status, is_stored, is_learned)
        if may_release(pod, records, now_s):
            self._released_s[pod.uid] = now_s
            self._pods.release(pod)

    def _is_gone(self, pod: Pod) -> bool:
        """Whether the task of a pod, which is not tracked, does not exist; one that PerLLM fails on does."""
        return self._has_tasks(pod.namespace) and not self._guard.is_troubled("task", pod.task_key)
