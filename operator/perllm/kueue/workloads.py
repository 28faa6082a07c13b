"""The Workloads of all tasks: asks for quota, follows what Kueue decides, and reports what becomes of the tasks."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from perllm.api.task_status import TaskPhase
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.writes import Write, WriteQueue
from perllm.kueue.flavor import Flavor
from perllm.kueue.pod_update import NO_UPDATE, PodUpdate, merge_updates
from perllm.kueue.priority_class import PriorityClass
from perllm.kueue.transitions import build_finish, build_ready, build_release
from perllm.kueue.workload import (
    EVICTED,
    FINISHED,
    PODS_READY,
    QUOTA_RESERVED,
    QueuedTask,
    TaskWorkload,
    build_workload,
    workloads_path,
)

CREATION = "creation"


class Workloads:
    """The Workloads of tasks in queues of Kueue.

    Args:
        client: the API server.
        writes: the queue that carries everything there.
        on_change: called with key and uid of a task about whose quota something has changed.
        is_known: whether all Workloads of a namespace, and all ResourceFlavors, have been seen.
        unix_now: wall clock.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        on_change: Callable[[str, str], None],
        *,
        is_known: Callable[[str], bool],
        unix_now: Callable[[], float],
    ) -> None:
        self._client = client
        self._writes = writes
        self._on_change = on_change
        self.is_known = is_known
        self._unix_now = unix_now
        self._seen: dict[str, TaskWorkload] = {}
        self._flavors: dict[str, Flavor] = {}
        self._priorities: dict[str, int] = {}
        self._unranked: dict[str, QueuedTask] = {}
        self._problems: dict[str, str] = {}
        self._asked: dict[str, str] = {}

    def on_workload(self, old: TaskWorkload | None, new: TaskWorkload | None) -> None:
        """Handle a Workload that was added, changed or deleted."""
        if new is not None:
            self._seen[new.task_uid] = new
            self._problems.pop(new.task_uid, None)
        elif old is not None:
            self._seen.pop(old.task_uid, None)
            self._asked.pop(old.task_uid, None)
        changed = new or old
        if changed is not None:
            self._on_change(changed.task_key, changed.task_uid)

    def on_flavor(self, old: Flavor | None, new: Flavor | None) -> None:
        """Handle a ResourceFlavor that was added, changed or deleted."""
        if new is not None:
            self._flavors[new.name] = new
        elif old is not None:
            self._flavors.pop(old.name, None)
        for workload in [one for one in self._seen.values() if new is not None and new.name in one.flavors]:
            self._on_change(workload.task_key, workload.task_uid)

    def on_priority_class(self, old: PriorityClass | None, new: PriorityClass | None) -> None:
        """Handle a WorkloadPriorityClass that was added, changed or deleted; existing Workloads keep their priority."""
        if new is not None:
            self._priorities[new.name] = new.value
            for task in [one for one in self._unranked.values() if one.priority_class == new.name]:
                self._on_change(task.key, task.uid)
        elif old is not None:
            self._priorities.pop(old.name, None)

    def find_obstacle(self, task: QueuedTask, *, is_active: bool = False) -> str | None:
        """Return why a task may not run, in a sentence; None if it may.

        A ResourceFlavor says where its next pod may go. That it is not known does not stop an attempt that is active:
        its quota is still its own.
        """
        workload = self._seen.get(task.uid)
        if workload is None:
            return self._explain_lack(task)
        if not workload.may_run:
            return workload.explain() or f"queue {task.queue} has not admitted it yet"
        missing = [] if is_active else [name for name in workload.flavors if name not in self._flavors]
        return f"its ResourceFlavor {missing[0]} is not known" if missing else None

    def find_update(self, uid: str) -> PodUpdate:
        """Return what the quota of a task adds to its pod."""
        workload = self._seen.get(uid)
        if workload is None:
            return NO_UPDATE
        flavors = [self._flavors[name].update for name in workload.flavors if name in self._flavors]
        return merge_updates([*flavors, workload.update])

    def report(self, task: QueuedTask, phase: TaskPhase, *, is_active: bool) -> None:
        """Bring the Workload of a task in line with the task.

        Args:
            task: the task.
            phase: that it is in.
            is_active: whether an attempt at it has not ended.
        """
        workload = self._seen.get(task.uid)
        if phase.is_final:
            self.finish(task.uid, phase)
        elif workload is None:
            self._create(task)
        elif workload.holds(EVICTED) and workload.holds(QUOTA_RESERVED) and not is_active:
            self._change(workload, "release", build_release(workload, self._unix_now()))
        elif phase is TaskPhase.RUNNING and not workload.holds(PODS_READY):
            self._change(workload, "ready", build_ready(workload, self._unix_now()))

    def finish(self, uid: str, phase: TaskPhase) -> None:
        """Free the quota of a task that has ended in this phase."""
        workload = self._seen.get(uid)
        if workload is not None and not workload.holds(FINISHED):
            reason = "Succeeded" if phase is TaskPhase.SUCCEEDED else "Failed"
            words = f"The task has ended in phase {phase}"
            self._change(workload, "finish", build_finish(workload, reason, words, self._unix_now()))

    def forget(self, key: str, uid: str) -> None:
        """Forget what is only known of a task that no longer exists; its Workload is deleted with it."""
        self._problems.pop(uid, None)
        self._unranked.pop(uid, None)
        if self._asked.get(uid) == CREATION:
            self._writes.drop("workload", key)
            del self._asked[uid]

    def _explain_lack(self, task: QueuedTask) -> str:
        """Return why a task has no Workload."""
        if task.uid in self._unranked:
            return f"there is no WorkloadPriorityClass {task.priority_class}"
        return self._problems.get(task.uid) or f"its Workload for queue {task.queue} is being created"

    def _create(self, task: QueuedTask) -> None:
        """Create the Workload of a task, as soon as its priority is known."""
        priority = self._priorities.get(task.priority_class) if task.priority_class else task.priority
        if priority is None:
            self._unranked[task.uid] = task
            return
        self._unranked.pop(task.uid, None)
        ranked = replace(task, priority=priority)
        self._ask(task.uid, CREATION, task.key, partial(self._post, ranked))

    def _change(self, workload: TaskWorkload, what: str, patch: Object) -> None:
        path = f"{workloads_path(workload.namespace)}/{workload.name}/status"
        step = f"{what} {workload.version}"
        self._ask(workload.task_uid, step, workload.task_key, partial(self._patch, path, patch))

    def _ask(self, uid: str, step: str, key: str, send: Callable[[], Awaitable[None]]) -> None:
        """Write, unless the same was written already and its effect is still to be seen."""
        if self._asked.get(uid) != step:
            self._asked[uid] = step
            self._writes.put(Write("workload", key, send))

    async def _post(self, task: QueuedTask) -> None:
        try:
            await self._client.post(workloads_path(task.namespace), build_workload(task))
        except ApiError as error:
            is_wanted = self._asked.get(task.uid) == CREATION
            if error.status == 409 or not is_wanted:
                return  # it exists, or the task was forgotten meanwhile
            self._problems[task.uid] = f"its Workload cannot be created yet and will be retried: {error.message}"
            self._on_change(task.key, task.uid)
            raise

    async def _patch(self, path: str, patch: Object) -> None:
        try:
            await self._client.patch(path, patch, kind=PatchKind.MERGE)
        except ApiError as error:
            # 404 or 409: it is gone or has changed, which the watch will show.
            if error.status not in (404, 409):
                raise
