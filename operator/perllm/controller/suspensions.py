"""Which tasks may not run for now: those that are suspended, and those in a queue that Kueue has not admitted."""

from collections.abc import Iterable
from dataclasses import replace

from perllm.api.task_status import TaskPhase, TaskStatus
from perllm.cluster.pod import Pod
from perllm.controller.conditions import Note
from perllm.controller.task import Task
from perllm.kueue.workload import QueuedTask, build_request_template
from perllm.kueue.workloads import Workloads


class Suspensions:
    """Finds what suspends tasks, and reports to Kueue what becomes of those in its queues.

    Args:
        workloads: of the tasks in queues of Kueue; None if queues are ignored.
        served_resource: the resource of which a task without a template takes one unit of quota.
    """

    def __init__(self, workloads: Workloads | None = None, served_resource: str = "") -> None:
        self._workloads = workloads
        self._request_template = build_request_template(served_resource)

    def find(self, task: Task, status: TaskStatus, pods: Iterable[Pod]) -> Note | None:
        """Return why a task may not run for now; None if it may."""
        if task.spec is None:
            return None
        if self._workloads is None or not task.queue:
            return Note("Suspended", "suspended by spec.suspend") if task.spec.suspend else None
        if status.pod_name is not None and not self._workloads.is_known(task.namespace):
            return None
        is_active = any(not (pod.is_finished or pod.is_deleting) for pod in pods)
        obstacle = self._workloads.find_obstacle(self._to_queued(task), is_active=is_active)
        return None if obstacle is None else Note("WaitingForQuota", f"waiting for quota: {obstacle}")

    def assign(self, task: Task) -> Task:
        """Return a task with the nodes that its quota is for."""
        update = task.update if self._workloads is None else self._workloads.find_update(task.uid)
        return task if update == task.update else replace(task, update=update)

    def report(self, task: Task, status: TaskStatus, pods: Iterable[Pod]) -> None:
        """Report to Kueue what has become of a task in one of its queues."""
        if self._workloads is None or not task.queue or task.spec is None:
            return
        # A pod that is not gone since its node does not answer takes neither slots nor quota from others.
        is_active = any(not (pod.is_finished or pod.has_left_slots) for pod in pods)
        self._workloads.report(self._to_queued(task), status.phase, is_active=is_active)

    def report_end(self, uid: str, phase: TaskPhase) -> None:
        """Report to Kueue that a task is over of which only the end is kept."""
        if self._workloads is not None:
            self._workloads.finish(uid, phase)

    def forget(self, key: str, uid: str) -> None:
        """Forget a task that no longer exists."""
        if self._workloads is not None:
            self._workloads.forget(key, uid)

    def _to_queued(self, task: Task) -> QueuedTask:
        spec = task.valid_spec
        return QueuedTask(
            namespace=task.namespace,
            name=task.name,
            uid=task.uid,
            queue=task.queue,
            priority=spec.priority,
            priority_class=task.priority_class,
            template=spec.template or self._request_template,
        )
