"""Decides when a waiting task gets its pod.

A pod is created only when a node can take it now, and only a bounded number of pods wait for kube-scheduler at a time:
so the order is ours until the last moment, and a pod that exists is about to run.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from perllm.api.task import OnInfeasible, Tier
from perllm.controller.queue import Entry, TaskQueue
from perllm.controller.task import Task
from perllm.placement.placer import Placement, Placer
from perllm.policy.problem import REFUSED_BANDWIDTH, REFUSED_COMPUTE

log = logging.getLogger(__name__)

MAX_UNBOUND_PODS = 32
"""Pods that may wait for kube-scheduler at a time: enough to keep it busy, few enough to keep the order ours."""

UNBOUND_PATIENCE_S = 10.0
"""A pod that kube-scheduler has not placed by then waits for something of its own and holds up nobody."""

MAX_EXAMINED = 64
"""Waiting tasks that a node is sought for in one round; bounds the time the event loop is held."""

MAX_SKIPPED = 2048
"""Waiting tasks passed over in one round because their tiers are full; cheap, but not free."""

ROUND_PAUSE_S = 0.01
"""Between two rounds, so that a burst of events makes one."""

ROUND_INTERVAL_S = 1.0
"""A round is also made when nothing happened: deadlines come nearer, metrics change."""


class Verdict(StrEnum):
    """What to do about a waiting task."""

    START = "start"
    WAIT = "wait"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for its next pod."""

    task: Task
    attempt: int


def judge(placement: Placement, on_infeasible: OnInfeasible) -> Verdict:
    """Return whether a task can start now, should wait for room, or is to be refused."""
    choice = placement.choice
    if choice.candidates:
        return Verdict.START
    if on_infeasible is OnInfeasible.BEST_EFFORT:
        return Verdict.WAIT if choice.arm is None else Verdict.START
    has_hope = choice.refused.keys() & {REFUSED_COMPUTE, REFUSED_BANDWIDTH} or not placement.names
    return Verdict.WAIT if has_hope else Verdict.REJECT


class Dispatcher:
    """Hands out pods to waiting tasks.

    Args:
        placer: says where a task could go now.
        create_pod: creates the pod of a task's attempt; must not raise.
        reject: ends a task that cannot be run in time.
        wait: called with the reason when a task has to wait for room.
    """

    def __init__(
        self,
        placer: Placer,
        *,
        create_pod: Callable[[Waiting], Coroutine[Any, Any, None]],
        reject: Callable[[Task, Placement], None],
        wait: Callable[[Task, Placement], None],
    ) -> None:
        self._placer = placer
        self._create_pod = create_pod
        self._reject = reject
        self._wait = wait
        self._queue = TaskQueue()
        self._waiting: dict[str, Waiting] = {}
        self._unbound: dict[str, float] = {}
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for a pod."""
        return len(self._queue)

    def add(self, waiting: Waiting) -> None:
        """Queue a task for its next pod; again is harmless."""
        key = waiting.task.key
        known = self._waiting.get(key)
        if known is not None and (known.task.uid, known.attempt) == (waiting.task.uid, waiting.attempt):
            return
        self._waiting[key] = waiting
        self._enqueue(waiting)
        self._wake.set()

    def remove(self, key: str) -> None:
        """Forget a task: it ended, was deleted, or its pod is bound."""
        self._queue.remove(key)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._placer.release_reservation(waiting.task.uid)
        self._unbound.pop(key, None)
        self._wake.set()

    def wake(self) -> None:
        """Look at the waiting tasks again: room may have appeared."""
        self._wake.set()

    async def run(self) -> None:
        """Hand out pods until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    async with asyncio.timeout(ROUND_INTERVAL_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                for waiting in self._select():
                    self._unbound[waiting.task.key] = asyncio.get_running_loop().time()
                    group.create_task(self._create_pod(waiting))
                await asyncio.sleep(ROUND_PAUSE_S)

    def _select(self) -> list[Waiting]:
        """Return the tasks that get a pod now."""
        starting: list[Waiting] = []
        postponed: list[Entry] = []
        full: set[frozenset[Tier]] = set()
        room, examined = self._room(), 0
        for entry in self._queue.drain(MAX_SKIPPED if room > 0 else 0):
            waiting = self._waiting[entry.key]
            if waiting.task.valid_spec.allowed_tiers in full:
                postponed.append(entry)
                continue
            examined += 1
            placement = self._placer.choose(waiting.task.to_request())
            verdict = judge(placement, waiting.task.valid_spec.on_infeasible)
            if verdict is Verdict.REJECT:
                del self._waiting[entry.key]
                self._reject(waiting.task, placement)
            elif verdict is Verdict.WAIT:
                postponed.append(entry)
                self._wait(waiting.task, placement)
                if placement.choice.arm is None:
                    full.add(waiting.task.valid_spec.allowed_tiers)
            else:
                self._reserve(placement)
                starting.append(waiting)
            if len(starting) == room or examined == MAX_EXAMINED:
                break
        for entry in postponed:
            self._queue.put_back(entry)
        return starting

    def _room(self) -> int:
        patient_since_s = asyncio.get_running_loop().time() - UNBOUND_PATIENCE_S
        return MAX_UNBOUND_PODS - sum(1 for since_s in self._unbound.values() if since_s > patient_since_s)

    def _reserve(self, placement: Placement) -> None:
        """Let the next task of this round see less room."""
        if placement.node is not None:
            self._placer.reserve(placement, placement.node)

    def _enqueue(self, waiting: Waiting) -> None:
        placement = self._placer.choose(waiting.task.to_request())
        shortest_s = float(placement.arms.latency_s.min()) if placement.names else 0.0
        task = waiting.task
        self._queue.put(task.key, task.valid_spec.priority, task.due_s - shortest_s)
