"""The tasks that the operator tracks, with what was seen of their pods."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from perllm.api.task_status import TaskStatus
from perllm.cluster.pod import Pod
from perllm.controller.conditions import Note
from perllm.controller.decisions import read_decision
from perllm.controller.lifecycle import find_judged
from perllm.controller.task import Task
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence


@dataclass(slots=True)
class Tracked:
    """A task that the operator tracks.

    Attributes:
        task: the task.
        status: its status; authoritative, since only the operator writes it.
        pods: its pods, by name.
        timer: its next reconciliation.
        residence: what it met on its node.
        is_learned: whether its outcome was learned, or there is nothing to learn.
        revision: revision of its node's learned state that contains the outcome; 0 if none has to.
        note: why it has no pod yet.
        cause: why it needs another pod.
        widened: number of the attempt whose pod fitted on none of the nodes that it named; the next one names none.
        ended: the pod that ended last; it may be gone.
        put: the status that was last given to the writer; None if that has another one.
        read: the pod whose record was read last, and the decision in it.
    """

    task: Task
    status: TaskStatus
    pods: dict[str, Pod] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    residence: Residence | None = None
    is_learned: bool = False
    revision: int = 0
    note: Note | None = None
    cause: str = ""
    widened: int = 0
    ended: Pod | None = None
    put: TaskStatus | None = None
    read: tuple[object, Decision | None] = (None, None)

    @property
    def all_pods(self) -> list[Pod]:
        """Its pods, including the one that ended last even if it is gone."""
        gone = [] if self.ended is None or self.ended.name in self.pods else [self.ended]
        return [*self.pods.values(), *gone]

    @property
    def judged_pods(self) -> list[Pod]:
        """Its pods without those that PerLLM stopped, whose ends say nothing about task or node."""
        return find_judged(self.status, self.all_pods)

    def find_pod(self, name: str | None) -> Pod | None:
        """Return one of its pods; None if it is no longer known."""
        return next((pod for pod in self.all_pods if pod.name == name), None)

    def decision_of(self, pod: Pod) -> Decision | None:
        """Return the decision that bound one of its pods, as `read_decision` does, but read each record once."""
        about = self.task, pod.uid, pod.node, pod.decision_record
        if self.read[0] != about:
            self.read = about, read_decision(self.task, pod)
        return self.read[1]


class Tracking:
    """Tracked tasks by key, and pods of tasks that are not known yet."""

    def __init__(self) -> None:
        self._tracked: dict[str, Tracked] = {}
        self._orphans: dict[str, dict[str, Pod]] = {}

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._tracked.values()))

    def get(self, key: str) -> Tracked | None:
        """Return the task of this name; None if there is none."""
        return self._tracked.get(key)

    def find(self, key: str, uid: str) -> Tracked | None:
        """Return a task; None once it is gone, even if another task has its name by now."""
        tracked = self._tracked.get(key)
        return tracked if tracked is not None and tracked.task.uid == uid else None

    def add(self, task: Task, status: TaskStatus) -> Tracked:
        """Track a task, with those of its pods that were seen before it."""
        pods = {name: pod for name, pod in self._orphans.pop(task.key, {}).items() if pod.task_uid == task.uid}
        tracked = self._tracked[task.key] = Tracked(task, status, pods)
        return tracked

    def pop(self, key: str) -> Tracked | None:
        """Stop tracking a task and return it."""
        return self._tracked.pop(key, None)

    def pods_of(self, pod: Pod) -> dict[str, Pod]:
        """Return the pods of a pod's task, whether the task is known or not."""
        tracked = self.find(pod.task_key, pod.task_uid)
        return self._orphans.setdefault(pod.task_key, {}) if tracked is None else tracked.pods

    def orphans_of(self, key: str, uid: str) -> list[Pod]:
        """Return the pods of a task that is not known."""
        return [pod for pod in self._orphans.get(key, {}).values() if pod.task_uid == uid]

    def drop_orphans(self, key: str) -> None:
        """Forget the pods of a task that is not known."""
        self._orphans.pop(key, None)

    def drop_orphan(self, pod: Pod) -> None:
        """Forget a pod that is gone, if its task is not known."""
        orphans = self._orphans.get(pod.task_key)
        if orphans is not None:
            orphans.pop(pod.name, None)
            if not orphans:
                del self._orphans[pod.task_key]
