"""A dispatcher over nodes, with an API server and pods as a test wants them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

from perllm.cluster.node import Node
from perllm.controller.dispatcher import Dispatcher, Waiting
from perllm.controller.task import Task
from perllm.guard import Guard
from perllm.policy.problem import Policy
from perllm.scheduling.refusal import PodRefusal
from perllm.scheduling.shares import Shares
from unit.placement.cluster_of import Setting, make_setting

CLOCK_S = 0.05


class Dispatched:
    """What a dispatcher does.

    Attributes:
        created: task and attempt of every pod that was asked for.
        started_s: when the pod of each task was created, since the dispatcher began.
        answer: what the API server says to a pod; None if it creates it.
        answer_s: how long it takes to say so.
        shows_pods: whether the pods that are created are seen.
        reject_fails: how many of the next refusals of tasks break.
        runs_s: how long a pod runs once it is bound, which is at once; None: nothing binds pods.
    """

    def __init__(self, *nodes: Node, policy: Policy | None = None, weights: dict[str, float] | None = None) -> None:
        self.setting: Setting = make_setting(*nodes, policy=policy)
        self.placer = self.setting.placer
        self.created: list[tuple[str, int]] = []
        self.started_s: dict[str, float] = {}
        self._started: dict[str, asyncio.Event] = {}
        self.rejected: list[str] = []
        self.postponed: list[str] = []
        self.refused: list[tuple[str, PodRefusal]] = []
        self.answer: Callable[[Task], PodRefusal | None] = lambda _: None
        self.answer_s: Callable[[Task], float] = lambda _: 0.0
        self.runs_s: Callable[[Task], float | None] = lambda _: None
        self.shows_pods = True
        self.reject_fails = 0
        self.guard = Guard(lambda _: None, Random(1))
        self.begun_s = 0.0
        self.dispatcher = Dispatcher(
            self.placer,
            shares=Shares(weights),
            create_pod=self._create,
            reject=lambda task, _: self._reject(task),
            wait=lambda task, _: self.postponed.append(task.name),
            postpone=lambda task, refusal: self.refused.append((task.name, refusal)),
            guard=self.guard,
            rng=Random(1),
        )

    def add(self, *tasks: Task, attempt: int = 1) -> None:
        for task in tasks:
            self.dispatcher.add(Waiting(task, attempt))

    def bind(self, task: Task) -> str:
        """Do what the extender and the controller do once kube-scheduler has placed the pod; return the node."""
        self.placer.release_reservation(task.uid)
        placement = self.placer.choose(task.to_request())
        assert placement.node is not None
        self.placer.confirm(self.placer.explain(placement, placement.node))
        self.dispatcher.remove(task.key)
        return placement.node

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self.begun_s = asyncio.get_running_loop().time()
        work = [asyncio.create_task(self.dispatcher.run()), asyncio.create_task(self._tick())]
        await asyncio.sleep(0.01)
        yield
        for one in work:
            one.cancel()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.created]

    async def wait_s(self, task: Task, limit_s: float) -> float:
        """Add a task; return how long it waits for its pod."""
        added_s = asyncio.get_running_loop().time() - self.begun_s
        started = self._started[task.key] = asyncio.Event()
        self.add(task)
        async with asyncio.timeout(limit_s):
            await started.wait()
        return self.started_s[task.key] - added_s

    async def _create(self, waiting: Waiting) -> PodRefusal | None:
        task = waiting.task
        self.created.append((task.name, waiting.attempt))
        if delay_s := self.answer_s(task):
            await asyncio.sleep(delay_s)
        refusal = self.answer(task)
        if refusal is None:
            loop = asyncio.get_running_loop()
            self.started_s[task.key] = loop.time() - self.begun_s
            self._started.setdefault(task.key, asyncio.Event()).set()
            if self.shows_pods:
                self.dispatcher.note_pod(task.key)
            runs_s = self.runs_s(task)
            if runs_s is not None:
                loop.call_soon(self._run, task, runs_s)
        return refusal

    def _reject(self, task: Task) -> None:
        if self.reject_fails:
            self.reject_fails -= 1
            raise ValueError("the task cannot be refused")
        self.rejected.append(task.name)

    def _run(self, task: Task, runs_s: float) -> None:
        node = self.bind(task)
        asyncio.get_running_loop().call_later(runs_s, self._end, task, node)

    def _end(self, task: Task, node: str) -> None:
        self.placer.release(task.uid)
        self.dispatcher.free(node)

    async def _tick(self) -> None:
        """Move the clock of the placer along, and forget reservations that were not carried out."""
        while True:
            await asyncio.sleep(CLOCK_S)
            self.setting.now_s += CLOCK_S
            self.placer.expire()
