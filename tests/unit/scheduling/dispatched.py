"""The dispatch loop in virtual time, with an API server and nodes that a test defines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from perllm.cluster.node import Node
from perllm.controller.task import Task
from perllm.guard import describe
from perllm.policy.problem import Policy
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.pending import Action, PendingTask, Reject, SetAside, Start, Wait
from unit.scheduling.schedulers import make_scheduler

START_S = 1000.0
ROUND_INTERVAL_S = 60.0
EXPIRY_S = 0.5


class Dispatched:
    """What the dispatch loop does.

    Attributes:
        created: task and attempt of every pod that was asked for.
        started_s: when the pod of each task was created, since the loop began.
        waited: tasks that had to wait, once per time they were examined.
        denied: tasks whose pods were denied, and why.
        answer: why the API server denies a pod; None if it creates it.
        answer_s: how long the API server takes to answer.
        shows_pods: whether created pods are seen.
        runs_s: how long a pod runs once it is bound, which is at once; None if it is never bound.
        late_s: by how much Unix time is ahead of virtual time.
    """

    def __init__(self, *nodes: Node, policy: Policy | None = None, weights: Mapping[str, float] | None = None) -> None:
        self.begun_s: float | None = None
        self.late_s = 0.0
        self._wake = asyncio.Event()
        made = make_scheduler(*nodes, now_s=self.now_s, policy=policy, weights=weights, notify=self._wake.set)
        self.scheduler, self.parts = made.scheduler, made.parts
        self.created: list[tuple[str, int]] = []
        self.started_s: dict[str, float] = {}
        self._started: dict[str, asyncio.Event] = {}
        self.rejected: list[str] = []
        self.waited: list[str] = []
        self.denied: list[tuple[str, PodDenial]] = []
        self.answer: Callable[[PendingTask], PodDenial | None] = lambda _: None
        self.answer_s: Callable[[PendingTask], float] = lambda _: 0.0
        self.runs_s: Callable[[PendingTask], float | None] = lambda _: None
        self.shows_pods = True

    def now_s(self) -> float:
        loop_s = asyncio.get_running_loop().time()
        if self.begun_s is None:
            self.begun_s = loop_s
        return START_S + loop_s - self.begun_s + self.late_s

    def add(self, *tasks: Task, attempt: int = 1) -> None:
        for task in tasks:
            self.scheduler.submit(task.to_pending(attempt))

    def bind(self, task: Task | PendingTask) -> str:
        """Do what the extender and the controller do once kube-scheduler has placed the pod; return the node."""
        request = task.to_request() if isinstance(task, Task) else task.request
        placement = self.scheduler.decide(request, list(self.parts.fleet.nodes))
        assert placement.node is not None
        decision = self.scheduler.settle(request.task_id, placement.node)
        assert decision is not None
        self.scheduler.confirm(decision, 1.0)
        self.scheduler.withdraw(task.key)
        return placement.node

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self.begun_s = asyncio.get_running_loop().time()
        work = [asyncio.create_task(self._run()), asyncio.create_task(self._expire())]
        await asyncio.sleep(0.01)
        yield
        for one in work:
            one.cancel()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.created]

    async def wait_s(self, task: Task, limit_s: float) -> float:
        """Add a task; return how long it waits for its pod."""
        added_s = self.now_s() - START_S
        started = self._started[task.key] = asyncio.Event()
        self.add(task)
        async with asyncio.timeout(limit_s):
            await started.wait()
        return self.started_s[task.key] - added_s

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                actions = self.scheduler.due()
                self._wake.clear()
                for action in actions:
                    self._carry_out(action, group)
                await asyncio.sleep(0.01)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(max(self.scheduler.next_s() - self.now_s(), 0.0), ROUND_INTERVAL_S)):
                        await self._wake.wait()

    def _carry_out(self, action: Action, group: asyncio.TaskGroup) -> None:
        match action:
            case Start(task):
                group.create_task(self._create(task))
            case Wait(task):
                self.waited.append(_name(task))
            case Reject(task):
                self.rejected.append(_name(task))
            case SetAside(task, error):
                self.denied.append((_name(task), PodDenial(DenialCause.FAULT, describe(error))))

    async def _create(self, task: PendingTask) -> None:
        self.created.append((_name(task), task.attempt))
        try:
            if delay_s := self.answer_s(task):
                await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            self.scheduler.note_abandoned(task)
            raise
        denial = self.answer(task)
        if denial is not None:
            self.denied.append((_name(task), denial))
            self.scheduler.note_denied(task, denial)
            return
        self.started_s[task.key] = self.now_s() - START_S
        self._started.setdefault(task.key, asyncio.Event()).set()
        self.scheduler.note_created(task)
        if self.shows_pods:
            self.scheduler.note_pod(task.key)
        runs_s = self.runs_s(task)
        if runs_s is not None:
            asyncio.get_running_loop().call_soon(self._start, task, runs_s)

    def _start(self, task: PendingTask, runs_s: float) -> None:
        node = self.bind(task)
        asyncio.get_running_loop().call_later(runs_s, self.scheduler.end, task.uid, node)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            self.scheduler.refresh()


def _name(task: PendingTask) -> str:
    return task.key.partition("/")[2]
