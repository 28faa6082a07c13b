"""Moves tasks about which nothing more will be known to the history."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from perllm.api.quantities import parse_duration_s
from perllm.api.task_status import TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.pod import Pod
from perllm.cluster.shapes import as_object, as_text
from perllm.controller.history import History, Stub, pack_status
from perllm.controller.lifecycle import find_end_s
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.reconciler import Reconciler
from perllm.controller.status_writer import StatusWriter, read_stored
from perllm.controller.summary import is_settled
from perllm.controller.task import read_status
from perllm.controller.tracking import Tracked, Tracking
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.slices import Slices

INTERVAL_S = 0.5


class Retirement:
    """Examines tracked tasks for whether they are over.

    Args:
        tracking: the tasks.
        history: the finished tasks.
        reconciler: drops what is not needed any more.
        writer: knows which statuses are stored.
        outcomes: know which outcomes are stored.
        has_pods: whether the pods of a namespace were listed.
        guard: contains failures about single tasks.
        unix_now: wall clock.
    """

    def __init__(
        self,
        tracking: Tracking,
        history: History,
        reconciler: Reconciler,
        writer: StatusWriter,
        outcomes: OutcomeLearner,
        *,
        has_pods: Callable[[str], bool],
        guard: Guard,
        unix_now: Callable[[], float],
    ) -> None:
        self._tracking = tracking
        self._history = history
        self._reconciler = reconciler
        self._writer = writer
        self._outcomes = outcomes
        self._has_pods = has_pods
        self._guard = guard
        self._unix_now = unix_now

    async def run(self) -> None:
        """Retire tasks, and delete finished ones whose time is over, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._examine_all()
            self._history.tidy()

    async def _examine_all(self) -> None:
        slices = Slices()
        for tracked in self._tracking:
            if tracked.status.phase.is_final and self._tracking.get(tracked.task.key) is tracked:
                self.examine(tracked)
            await slices.pause()

    def examine(self, tracked: Tracked) -> None:
        """Retire a task if it is over."""
        key, has_pods = tracked.task.key, self._has_pods(tracked.task.namespace)
        if has_pods and self._writer.is_stored(key) and is_over(tracked) and self._outcomes.is_stored(tracked):
            self._guard.run("retirement", key, partial(self._retire, tracked), again=False)

    def _retire(self, tracked: Tracked) -> None:
        task, ended_s = tracked.task, find_end_s(tracked.status, self._unix_now())
        stored = self._writer.stored(task.key)
        ttl_s = None if task.spec is None else task.spec.ttl_after_finished_s
        stub = Stub(
            uid=task.uid,
            generation=task.generation,
            ended_s=ended_s,
            expires_s=self._history.expire_s(ended_s, ttl_s),
            packed_status=pack_status(stored.fields),
            version=stored.version,
            is_deleting=task.is_deleting,
        )
        self._reconciler.forget(task.key)
        self._history.add(task.key, stub)


def read_stub(item: Object, pods: Collection[Pod], history: History, learner: Learner) -> Stub | None:
    """Return the stub of a task that was over before this process saw it; None if it has to be examined in full.

    Args:
        item: the task.
        pods: its pods.
        history: knows how long tasks are kept.
        learner: knows which outcomes it contains.
    """
    metadata, stored = item["metadata"], read_stored(item)
    status = read_status(stored.fields)
    generation = metadata.get("generation", 1)
    if not is_settled(status) or status.observed_generation != generation or any(map(_is_needed, pods)):
        return None
    has_record = status.decision_record is not None or any(pod.decision_record for pod in pods)
    if has_record and not _has_learned(learner, metadata["uid"], status):
        return None
    ended_s = find_end_s(status, 0.0)
    return Stub(
        uid=metadata["uid"],
        generation=generation,
        ended_s=ended_s,
        expires_s=history.expire_s(ended_s, _read_ttl_s(item)),
        packed_status=pack_status(stored.fields),
        version=stored.version,
        is_deleting=bool(metadata.get("deletionTimestamp")),
    )


def _read_ttl_s(item: Object) -> float | None:
    """Return the time to live that a task asks for; None if there is none that can be read."""
    try:
        return parse_duration_s(as_text(as_object(item.get("spec")).get("ttlAfterFinished")))
    except ValueError:
        return None


def _has_learned(learner: Learner, uid: str, status: TaskStatus) -> bool:
    """Whether the outcome of a task is known, or it has none."""
    observed = status.observed
    if observed is None or observed.latency is None or status.node_name is None or status.received_time is None:
        return observed is None
    return learner.recent(status.node_name).contains(uid, status.received_time.timestamp() + observed.latency)


def _is_needed(pod: Pod) -> bool:
    """Whether a pod has not ended, or its end is not recorded."""
    return pod.is_retained or not pod.is_finished or pod.linger_s is not None


def is_over(tracked: Tracked) -> bool:
    """Whether nothing more will be known about a task, and nothing more is to be done."""
    if not is_settled(tracked.status) or tracked.status.observed_generation != tracked.task.generation:
        return False
    if any(map(_is_needed, tracked.pods.values())):
        return False
    is_taught = tracked.status.observed is None or tracked.is_learned
    return is_taught or tracked.find_pod(tracked.status.pod_name) is None
