"""Decides when a waiting task gets its pod.

A pod is created only when a node can take it now and the policy finds none worth waiting for, and only a bounded number
of pods wait for kube-scheduler at a time: so the order is ours until the last moment, and a pod that exists is about to
run. A task whose pod is refused gives back at once all that it was given, and waits apart from the others.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from perllm.api.task import MAX_PRIORITY
from perllm.controller.task import Task
from perllm.guard import Guard, describe
from perllm.placement.placer import Placement, Placer
from perllm.policy.problem import Verdict
from perllm.scheduling.admission import Admission
from perllm.scheduling.backlog import Line
from perllm.scheduling.lines import PAUSE_S, WaitingLines
from perllm.scheduling.places import Places
from perllm.scheduling.postponed import Postponed
from perllm.scheduling.ranking import Rank
from perllm.scheduling.refusal import PodRefusal, RefusalCause
from perllm.scheduling.shares import LOOK_S, Shares

MAX_UNBOUND_PODS = 32
"""Pods of one namespace that may wait for kube-scheduler at a time, of all together four times as many: enough to keep
it busy, few enough to keep the order ours."""

UNBOUND_PATIENCE_S = 10.0
"""A pod that kube-scheduler has not placed by then waits for something of its own and holds up nobody."""

MAX_CREATIONS = 16
"""Pods of one namespace that are being created at a time, of all together four times as many: fewer than may be written
at a time, so that statuses can be written though all of them hang."""

CREATION_PATIENCE_S = 2.0
"""A creation that takes longer waits for a webhook, and holds no room on a node meanwhile."""

SIGHT_PATIENCE_S = 30.0
"""A pod that was created and is not seen by then was deleted at once, or changed so that it is not known as one."""

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


@dataclass(slots=True)
class _Claim:
    """What a task was given to start with.

    Attributes:
        work_s: GPU seconds that its namespace was charged.
        row: the node that room is kept on; None once others may have it.
        is_seen: whether the pod was seen that was created of it.
    """

    work_s: float
    row: int | None
    is_seen: bool = False


class Dispatcher:
    """Hands out pods to waiting tasks.

    Args:
        placer: says where a task could go now.
        admission: says whether it starts, waits or is refused.
        shares: what each namespace was given.
        create_pod: creates the pod of a task's attempt; returns why it was refused if it may be created later.
        reject: ends a task that cannot be run in time.
        wait: called with the reason when a task has to wait for room.
        postpone: called with the reason when a task's pod was refused.
        guard: keeps what goes wrong about one task from the others.
        rng: for the jitter of pauses.
    """

    def __init__(
        self,
        placer: Placer,
        *,
        shares: Shares,
        create_pod: Callable[[Waiting], Coroutine[Any, Any, PodRefusal | None]],
        reject: Callable[[Task, Placement], None],
        wait: Callable[[Task, Placement], None],
        postpone: Callable[[Task, PodRefusal], None],
        guard: Guard,
        rng: Random,
        admission: Admission | None = None,
    ) -> None:
        self._placer = placer
        self._shares = shares
        self._create_pod = create_pod
        self._reject = reject
        self._wait = wait
        self._postpone = postpone
        self._guard = guard
        self._admission = admission or Admission()
        self._lines: WaitingLines[str] = WaitingLines(shares)
        self._postponed = Postponed(self._come_back, rng)
        self._waiting: dict[str, Waiting] = {}
        self._ranks: dict[str, Rank] = {}
        self._claims: dict[str, _Claim] = {}
        self._unbound = Places(4 * MAX_UNBOUND_PODS, UNBOUND_PATIENCE_S)
        self._creating = Places(4 * MAX_CREATIONS)
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for a pod."""
        return len(self._lines) + len(self._postponed)

    def postponed(self, cause: RefusalCause) -> int:
        """Return how many of them wait since their pod was refused for this cause."""
        return self._postponed.count(cause)

    def add(self, waiting: Waiting) -> None:
        """Queue a task for its next pod; again is harmless: it is looked at again, by its newest priority."""
        key = waiting.task.key
        known = self._waiting.get(key)
        is_known = known is not None and (known.task.uid, known.attempt) == (waiting.task.uid, waiting.attempt)
        is_changed = known is not None and known.task.generation != waiting.task.generation and key in self._lines
        if is_known and not is_changed:
            self._lines.again(key)
        else:
            self._ranks[key] = self._rank(waiting.task)
            self._postponed.remove(key)
            self._waiting[key] = waiting
            self._queue(waiting.task)
        self._wake.set()

    def remove(self, key: str) -> None:
        """Forget a task: it ended, was deleted, or its pod is bound."""
        self._lines.remove(key)
        self._postponed.remove(key)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._placer.ledger.stop_waiting(waiting.task.uid)
            self._placer.release_reservation(waiting.task.uid)
        self._ranks.pop(key, None)
        self._claims.pop(key, None)
        self._unbound.give_back(key)
        for kind in ("placement", "pod creation", "refused pod"):
            self._guard.clear(kind, key)
        self._wake.set()

    def note_pod(self, key: str) -> None:
        """Note that a task has a pod that waits for kube-scheduler, also if its creation seemed to fail."""
        waiting, claim = self._waiting.get(key), self._claims.get(key)
        self._postponed.remove(key)
        if claim is not None:
            claim.is_seen = True
        if waiting is not None and key in self._lines:
            self._lines.remove(key)
            self._placer.ledger.stop_waiting(waiting.task.uid)

    def free(self, node: str) -> None:
        """Note that a node may have room again."""
        if node in self._placer.fleet.nodes:
            self._lines.call(self._placer.fleet.row(node))
            self._wake.set()

    def let_go(self, key: str) -> None:
        """Let others have the room that is kept for a task: its pod is not about to run."""
        waiting, claim = self._waiting.get(key), self._claims.get(key)
        if waiting is None or claim is None or claim.row is None:
            return
        self._placer.release_reservation(waiting.task.uid)
        self._lines.call(claim.row)
        claim.row = None
        self._wake.set()

    def hasten(self, key: str) -> None:
        """Try a task at once whose pod was refused: the cause has gone."""
        self._postponed.hasten(key)

    def note_sign(self, namespace: str) -> None:
        """Note that what the pods of a namespace are refused for may have gone."""
        self._postponed.note_sign(namespace)

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
                    group.create_task(self._create(waiting))
                await asyncio.sleep(ROUND_PAUSE_S)

    def _select(self) -> list[Waiting]:
        """Return the tasks that get a pod now."""
        starting: list[Waiting] = []
        due = self._lines.due(asyncio.get_running_loop().time(), self._may_start)
        for examined, key in enumerate(due, start=1):
            waiting = self._waiting[key]
            self._guard.run(
                "placement",
                key,
                partial(self._examine, waiting, starting),
                on_fault=partial(self._set_aside, waiting.task),
                again=False,
            )
            if examined == MAX_EXAMINED:
                self._wake.set()
                break
        return starting

    def _may_start(self, namespace: str) -> bool:
        now_s = asyncio.get_running_loop().time()
        return self._unbound.may_take(namespace, now_s) and self._creating.may_take(namespace, now_s)

    def _set_aside(self, task: Task, fault: str) -> None:
        """Keep a task apart that PerLLM fails on, so that the others go on."""
        self._lines.remove(task.key)
        self._take_back(task, PodRefusal(RefusalCause.FAULT, fault))

    def _examine(self, waiting: Waiting, starting: list[Waiting]) -> None:
        """Look for a node for a task, and add it to those that get their pods now if there is one."""
        task = waiting.task
        self._placer.ledger.stop_waiting(task.uid)
        placement = self._placer.choose(task.to_request(waiting.avoided))
        verdict = self._admission.judge(placement, task.valid_spec.on_infeasible)
        if verdict is Verdict.WAIT:
            self._await(task, placement)
            return
        arm = placement.arm
        if verdict is Verdict.START and arm is not None:
            if self._lines.give_way(task.key, int(placement.rows[arm])):
                return
            self._claim(task, placement, arm)
            starting.append(waiting)
            return
        self._reject(task, placement)
        self.remove(task.key)

    def _claim(self, task: Task, placement: Placement, arm: int) -> None:
        """Give a task what it starts with; the next one of this round sees less room."""
        work_s = float(placement.outlook.times.work_s[arm]) * placement.request.demand.slots
        self._claims[task.key] = _Claim(work_s, int(placement.rows[arm]))
        self._lines.remove(task.key, work_s=work_s)
        self._placer.reserve(placement, placement.names[arm])
        now_s = asyncio.get_running_loop().time()
        self._unbound.take(task.key, task.namespace, now_s)
        self._creating.take(task.uid, task.namespace, now_s)

    async def _create(self, waiting: Waiting) -> None:
        task = waiting.task
        patience = asyncio.get_running_loop().call_later(CREATION_PATIENCE_S, self._lose_patience, waiting)
        try:
            refusal = await self._create_pod(waiting)
        except asyncio.CancelledError:
            self._begin_again(waiting)
            raise
        except Exception as error:
            self._guard.note("pod creation", task.key, error)
            refusal = PodRefusal(RefusalCause.FAULT, describe(error))
        finally:
            patience.cancel()
            self._creating.give_back(task.uid)
            self._wake.set()
        if self._waiting.get(task.key) is not waiting:
            return
        if refusal is None:
            self._postponed.accept(task.key)
            asyncio.get_running_loop().call_later(SIGHT_PATIENCE_S, self._look_for_pod, waiting)
        else:
            self._guard.run("refused pod", task.key, partial(self._take_back, task, refusal), again=False)

    def _begin_again(self, waiting: Waiting) -> None:
        """Queue a task whose creation was broken off with the round; a pod that exists all the same is found then."""
        if self._waiting.get(waiting.task.key) is waiting:
            self.let_go(waiting.task.key)
            self._queue(waiting.task)

    def _lose_patience(self, waiting: Waiting) -> None:
        if self._waiting.get(waiting.task.key) is waiting:
            self.let_go(waiting.task.key)

    def _look_for_pod(self, waiting: Waiting) -> None:
        """Have a pod created again that was never seen; if it exists after all, its name is taken, and that is said."""
        task, claim = waiting.task, self._claims.get(waiting.task.key)
        if self._waiting.get(task.key) is not waiting or claim is None or claim.is_seen:
            return
        if task.uid in self._placer.ledger:
            # It is bound: only the news of it is late.
            asyncio.get_running_loop().call_later(SIGHT_PATIENCE_S, self._look_for_pod, waiting)
            return
        self._return_claim(task)
        self._queue(task)
        self._wake.set()

    def _return_claim(self, task: Task) -> None:
        """Take back what a task was given of which no pod has come."""
        self.let_go(task.key)
        self._unbound.give_back(task.key)
        claim = self._claims.pop(task.key, None)
        if claim is not None:
            self._shares.refund(task.namespace, claim.work_s - LOOK_S)

    def _take_back(self, task: Task, refusal: PodRefusal) -> None:
        """Take back what a task was given whose pod was refused, and keep it apart until the cause may have gone."""
        self._return_claim(task)
        self._postponed.put(task.key, task.namespace, self._ranks[task.key], refusal)
        self._postpone(task, refusal)

    def _come_back(self, key: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._queue(waiting.task)
            self._wake.set()

    def _queue(self, task: Task) -> None:
        priority = task.valid_spec.priority / MAX_PRIORITY
        self._lines.add(task.key, self._ranks[task.key], namespace=task.namespace, priority=priority)

    def _await(self, task: Task, placement: Placement) -> None:
        """Put the task into the line for its node, which the other tasks see."""
        arm = placement.choice.awaited
        request = placement.request
        line: Line = request.tiers, request.demand, request.avoided
        if arm is not None:
            line = int(placement.rows[arm])
            work_s = float(placement.outlook.times.work_s[arm])
            self._placer.ledger.wait(task.uid, line, work_s, slots=request.demand.slots, namespace=request.namespace)
        self._lines.wait(task.key, line)
        self._wait(task, placement)

    def _rank(self, task: Task) -> tuple[float, float]:
        """Higher priority comes first, then what must start sooner to be in time where it would best run."""
        placement = self._placer.choose(task.to_request())
        favourite = placement.favourite
        stay_s = 0.0 if favourite is None else float(placement.arms.latency_s[favourite])
        return -task.valid_spec.priority, task.due_s - stay_s
