"""Decides when a waiting task gets its pod.

A pod is created only when a node can take it now and the policy finds none worth waiting for, and only a bounded number
of pods wait for kube-scheduler at a time: so the order is ours until the last moment, and a pod that exists is about to
run.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from perllm.controller.task import Task
from perllm.placement.admission import Admission
from perllm.placement.lines import PAUSE_S, Line, WaitingLines
from perllm.placement.placer import Placement, Placer
from perllm.policy.problem import Verdict

log = logging.getLogger(__name__)

MAX_UNBOUND_PODS = 32
"""Pods that may wait for kube-scheduler at a time: enough to keep it busy, few enough to keep the order ours."""

UNBOUND_PATIENCE_S = 10.0
"""A pod that kube-scheduler has not placed by then waits for something of its own and holds up nobody."""

MAX_EXAMINED = 64
"""Waiting tasks that a node is sought for in one round; bounds the time the event loop is held."""

ROUND_PAUSE_S = 0.01
"""Between two rounds, so that a burst of events makes one."""

ROUND_INTERVAL_S = PAUSE_S
"""A round is also made when nothing happened: deadlines come nearer, and what a task waits for may not come."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for its next pod, which is to avoid nodes where earlier ones ended badly."""

    task: Task
    attempt: int
    avoided: frozenset[str] = frozenset()


class Dispatcher:
    """Hands out pods to waiting tasks.

    Args:
        placer: says where a task could go now.
        admission: says whether it starts, waits or is refused.
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
        admission: Admission | None = None,
    ) -> None:
        self._placer = placer
        self._create_pod = create_pod
        self._reject = reject
        self._wait = wait
        self._admission = admission or Admission()
        self._lines: WaitingLines[str] = WaitingLines()
        self._waiting: dict[str, Waiting] = {}
        self._unbound: dict[str, float] = {}
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for a pod."""
        return len(self._lines)

    def add(self, waiting: Waiting) -> None:
        """Queue a task for its next pod; again is harmless, it is then looked at again."""
        key = waiting.task.key
        known = self._waiting.get(key)
        if known is not None and (known.task.uid, known.attempt) == (waiting.task.uid, waiting.attempt):
            self._lines.again(key)
        else:
            self._waiting[key] = waiting
            self._lines.add(key, self._rank(waiting.task))
        self._wake.set()

    def remove(self, key: str) -> None:
        """Forget a task: it ended, was deleted, or its pod is bound."""
        self._lines.remove(key)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._placer.ledger.stop_waiting(waiting.task.uid)
            self._placer.release_reservation(waiting.task.uid)
        self._unbound.pop(key, None)
        self._wake.set()

    def free(self, node: str) -> None:
        """Note that a node may have room again."""
        if node in self._placer.fleet.nodes:
            self._lines.call(self._placer.fleet.row(node))
            self._wake.set()

    def renew(self) -> None:
        """Look at all waiting tasks again: a node has come, gone or changed."""
        self._lines.all_again()
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
        room = self._room()
        if room <= 0:
            return starting
        due = self._lines.due(asyncio.get_running_loop().time())
        for examined, key in enumerate(due, start=1):
            waiting = self._waiting[key]
            if self._examine(waiting):
                starting.append(waiting)
            if len(starting) == room or examined == MAX_EXAMINED:
                self._wake.set()
                break
        return starting

    def _examine(self, waiting: Waiting) -> bool:
        """Look for a node for a task; return whether it gets its pod now."""
        task = waiting.task
        self._placer.ledger.stop_waiting(task.uid)
        placement = self._placer.choose(task.to_request(waiting.avoided))
        verdict = self._admission.judge(placement, task.valid_spec.on_infeasible)
        if verdict is Verdict.WAIT:
            self._await(task, placement)
            return False
        self._lines.remove(task.key)
        if verdict is Verdict.START and placement.node is not None:
            # The next task of this round sees less room.
            self._placer.reserve(placement, placement.node)
            return True
        del self._waiting[task.key]
        self._reject(task, placement)
        return False

    def _await(self, task: Task, placement: Placement) -> None:
        """Put the task into the line for its node, which the other tasks see."""
        arm = placement.choice.awaited
        request = placement.request
        line: Line = request.tiers, request.demand, request.avoided
        if arm is not None:
            line = int(placement.rows[arm])
            work_s = float(placement.outlook.work_s[arm])
            self._placer.ledger.wait(task.uid, line, work_s, request.demand.slots)
        self._lines.wait(task.key, line)
        self._wait(task, placement)

    def _room(self) -> int:
        patient_since_s = asyncio.get_running_loop().time() - UNBOUND_PATIENCE_S
        return MAX_UNBOUND_PODS - sum(1 for since_s in self._unbound.values() if since_s > patient_since_s)

    def _rank(self, task: Task) -> tuple[float, float]:
        """Higher priority comes first, then what must start sooner to be in time where it would best run."""
        placement = self._placer.choose(task.to_request())
        favourite = placement.favourite
        stay_s = 0.0 if favourite is None else float(placement.arms.latency_s[favourite])
        return -task.valid_spec.priority, task.due_s - stay_s
