"""The dispatch loop: which waiting task comes next, and whether it starts, waits, or is rejected.

    due(now) -> [Start | Wait | Reject | SetAside]

A task starts only when a node can take it now and the policy finds no other node worth waiting for. Its slots are
reserved at once, so that the next task of the same round sees less room, and released if no pod comes of it. A task
whose pod the API server denies is postponed, outside all lines, until the cause may have gone; one that may wait for
cheaper energy is deferred, outside all lines too, until that is expected (deferral.py).

Within a namespace tasks go by priority, then by least laxity (laxity.py); which namespace comes next is decided by the
shares (shares.py). A node is sought once per task and round: the rank needs no decision, and the decision that a pod
was created on stands until it is bound, unless what it was based on has changed (`decide`).

Pure: no I/O and no clock of its own; everything that it depends on is passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from perllm.guard import describe
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement, Placer
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import Verdict
from perllm.scheduling.admission import Admission
from perllm.scheduling.backlog import NO_NODE, Line
from perllm.scheduling.claims import CREATION_PATIENCE_S, SIGHT_PATIENCE_S, Claim, Claims
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.deferral import StartPlanner
from perllm.scheduling.deferred import Deferred
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.lines import WaitingLines
from perllm.scheduling.order import Order, TaskRanks
from perllm.scheduling.pending import Action, PendingTask, Reject, SetAside, Start, Wait
from perllm.scheduling.postponed import Postponed
from perllm.scheduling.shares import EXAMINATION_S, Shares
from perllm.scheduling.standing import StandingDecisions
from perllm.scheduling.timers import Timers

MAX_EXAMINED = 64
"""Waiting tasks that are examined in one round; bounds the time for which the event loop is blocked."""


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """The rules of the queue that are not the policy's own; baselines are compared under several.

    Attributes:
        order: of the waiting tasks of a namespace.
        admission: whether a task starts, waits, or is rejected.
    """

    order: Order
    admission: Admission


class DispatchLoop:
    """Decides about waiting tasks.

    Args:
        placer: chooses a node for a task.
        fleet: the nodes.
        ledger: the tasks in flight.
        circuits: of the nodes.
        shares: what each namespace was given.
        rules: of the queue.
        planner: plans when tasks start that may wait for cheaper energy.
        clock: that decisions go by.
        rng: for the jitter of pauses.
    """

    def __init__(
        self,
        placer: Placer,
        *,
        fleet: Fleet,
        ledger: Ledger,
        circuits: Circuits,
        shares: Shares,
        rules: DispatchRules,
        planner: StartPlanner,
        clock: HeldClock,
        rng: Random,
    ) -> None:
        now_s = clock.now_s
        self._placer = placer
        self._fleet = fleet
        self._ledger = ledger
        self._shares = shares
        self._rules = rules
        self._planner = planner
        self._now_s = now_s
        self._timers = Timers()
        self._lines: WaitingLines[str] = WaitingLines(shares)
        self._postponed = Postponed(self._requeue, timers=self._timers, now_s=now_s, rng=rng)
        self._deferred = Deferred(self._requeue, planner=planner, timers=self._timers, clock=clock)
        self._ranks = TaskRanks(rules.order, placer)
        self._tasks: dict[str, PendingTask] = {}
        self._claims = Claims()
        self._is_cut_short = False
        self._must_examine_all = False
        self._knows_servers = False
        self._standing = StandingDecisions(fleet, ledger, circuits)

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for a pod."""
        return len(self._lines) + len(self._postponed) + len(self._deferred)

    @property
    def waiting_for_room(self) -> int:
        """Number of those that wait for nothing but room."""
        return self._lines.for_room

    @property
    def deferred(self) -> int:
        """Number of those that wait for cheaper energy."""
        return len(self._deferred)

    def postponed(self, cause: DenialCause) -> int:
        """Return how many of them wait because their pods were denied for this cause."""
        return self._postponed.count(cause)

    def submit(self, task: PendingTask) -> None:
        """Queue a task for its next pod; repeating it is harmless, and the newest generation counts."""
        known = self._tasks.get(task.key)
        is_known = known is not None and (known.uid, known.attempt) == (task.uid, task.attempt)
        is_waiting = task.key in self._lines or task.key in self._deferred
        is_changed = known is not None and known.generation != task.generation and is_waiting
        if is_known and not is_changed:
            if task.key in self._postponed:
                self._tasks[task.key] = task
            self._lines.requeue(task.key)
            return
        self._postponed.remove(task.key)
        self._deferred.remove(task.key)
        # What is still held for an earlier attempt: its pod ended before it was seen.
        self.release_room(task.key)
        self._claims.pop(task.key)
        self._tasks[task.key] = task
        self._queue(task)

    def withdraw(self, key: str) -> None:
        """Remove a task: it ended, was deleted, or its pod is bound."""
        self._lines.remove(key)
        self._postponed.remove(key)
        self._deferred.remove(key)
        task = self._tasks.pop(key, None)
        self._claims.pop(key)
        if task is not None:
            self._ledger.stop_waiting(task.uid)
            self.cancel(task.uid)
            self._standing.pop(task.uid)

    def retract(self, key: str) -> None:
        """Forget a task whose pod will be replaced, and release what it holds; it will be queued again."""
        task = self._tasks.get(key)
        if task is not None:
            self._release_claim(task)
            self.withdraw(key)

    def note_pod(self, key: str) -> None:
        """Note that a task has a pod that waits for kube-scheduler, even if its creation seemed to fail."""
        task, claim = self._tasks.get(key), self._claims.get(key)
        self._postponed.remove(key)
        self._deferred.remove(key)
        if claim is not None:
            claim.is_seen = True
            claim.timer.cancel()
        if task is not None and key in self._lines:
            self._lines.remove(key)
            self._ledger.stop_waiting(task.uid)

    def note_created(self, task: PendingTask) -> None:
        """Note that the API server has created the pod of a task."""
        self._claims.end_creation(task.uid)
        claim = self._claims.get(task.key)
        if self._tasks.get(task.key) == task and claim is not None:
            self._postponed.accept(task.key)
            if not claim.is_seen:
                self._await_sight(task, claim)

    def note_denied(self, task: PendingTask, denial: PodDenial) -> bool:
        """Postpone a task whose pod was denied, and release what it was given; return whether it still waits."""
        self._claims.end_creation(task.uid)
        if self._tasks.get(task.key) != task:
            return False
        self._postpone(task, denial)
        return True

    def note_abandoned(self, task: PendingTask) -> None:
        """Queue a task again because creating its pod was abandoned; if the pod exists after all, it will be seen."""
        self._claims.end_creation(task.uid)
        if self._tasks.get(task.key) == task:
            self._release_claim(task)
            self._queue(task)

    def release_room(self, key: str) -> None:
        """Release the slots that are reserved for a task: its pod will not run soon."""
        task, claim = self._tasks.get(key), self._claims.get(key)
        if task is None or claim is None or claim.row is None:
            return
        self.cancel(task.uid)
        self._lines.call(claim.row)
        claim.row = None

    def cancel(self, task_id: str) -> None:
        """Release the slots that are reserved for a task, if any: those who wait for them are examined."""
        row = self._placer.release_reservation(task_id)
        if row is not None:
            self._lines.call(row)

    def retry(self, key: str) -> None:
        """Retry a postponed task at once: the cause has gone."""
        self._postponed.retry_now(key)

    def retry_namespace(self, namespace: str) -> None:
        """Retry postponed tasks of a namespace, a few at a time: the causes of their denials may have gone."""
        self._postponed.retry_namespace(namespace)

    def free(self, node: str) -> None:
        """Note that a node may have room again."""
        if node in self._fleet.nodes:
            self._lines.call(self._fleet.row(node))

    def examine_all(self) -> None:
        """Examine all waiting tasks in the next round: a node joined, left or changed, usually several at once."""
        self._must_examine_all = True

    def note_costs(self) -> None:
        """Plan the starts of deferred tasks again: the expected cost of energy has changed."""
        self._deferred.examine_all()

    def note_servers_known(self) -> None:
        """Note that agents have had time to report: where no model server is known now, there is none."""
        self._knows_servers = True
        self.examine_all()

    def due(self) -> list[Action]:
        """Return the actions that are due; the caller carries them out and reports the results."""
        now_s = self._now_s()
        self._timers.run(now_s)
        if self._must_examine_all:
            self._lines.requeue_all()
            self.note_costs()
        self._must_examine_all = self._is_cut_short = False
        actions: list[Action] = []
        waiting = self._lines.due(now_s, lambda namespace: self._claims.may_start(namespace, now_s))
        for examined, key in enumerate(waiting, start=1):
            action = self._examine_safely(self._tasks[key])
            if action is not None:
                actions.append(action)
            if examined == MAX_EXAMINED:
                self._is_cut_short = True
                break
        return actions

    def next_s(self) -> float:
        """Return when `due` must be called next even if nothing happens; inf for never."""
        now_s = self._now_s()
        is_due = self._is_cut_short or self._must_examine_all
        return now_s if is_due else min(self._lines.next_s(now_s), self._timers.next_s())

    def decide(self, request: PlacementRequest, candidates: Sequence[str]) -> Placement:
        """Return the decision about a pod that kube-scheduler is about to place, with slots reserved for it.

        It is the decision that the pod was created on, unless the chosen node is not a candidate, the reservation was
        released, or nodes or circuits have changed since.
        """
        standing = self._standing.find(request, candidates)
        if standing is not None:
            return standing
        self.cancel(request.task_id)
        placement = self._placer.choose(request, candidates)
        if placement.node is None:
            self.forget_decision(request.task_id)
            return placement
        self._reserve(placement, placement.node)
        self._standing.put(placement)
        return placement

    def forget_decision(self, task_id: str) -> None:
        """Forget the decision about a pod that is bound or gone: it says something about every node, so it is large."""
        self._standing.pop(task_id)

    def settle(self, task_id: str, node: str) -> Placement | None:
        """Reserve slots on the node that kube-scheduler chose; None if there is no decision for it, or it has left."""
        placement = self._standing.get(task_id)
        if placement is None or node not in placement.names or node not in self._fleet.nodes:
            return None
        self._reserve(placement, node)
        return placement

    def _reserve(self, placement: Placement, node: str) -> None:
        """Reserve slots, unless the task is bound already: kube-scheduler asks again if the answer to that was lost."""
        if not self._ledger.is_confirmed(placement.request.task_id):
            self._placer.reserve(placement, node)

    def _examine_safely(self, task: PendingTask) -> Action | None:
        try:
            return self._examine(task)
        except Exception as error:
            self._lines.remove(task.key)
            self._postpone(task, PodDenial(DenialCause.FAULT, describe(error)))
            return SetAside(task, error)

    def _examine(self, task: PendingTask) -> Action | None:
        """Seek a node for a task; None if the task yields to others."""
        self._ledger.stop_waiting(task.uid)
        placement = self._placer.choose(task.request)
        if task.request.runner is not None and self._knows_servers and placement.eligibility.is_unserved:
            placement = self._placer.choose(task.request.as_pod(task.request.runner))
        verdict = self._rules.admission.judge(placement, task.on_infeasible)
        if verdict is Verdict.REJECT:
            self.withdraw(task.key)
            return Reject(task, placement)
        until_s = self._find_wait(task, placement)
        if until_s is not None:
            self._lines.remove(task.key)
            self._deferred.put(task, until_s)
            return Wait(task, placement, until_s)
        arm = placement.arm
        if verdict is Verdict.WAIT or arm is None:
            self._await(task, placement)
            return Wait(task, placement)
        if self._lines.yield_to_others(task.key, int(placement.rows[arm])):
            return None
        self._start(task, placement, arm)
        return Start(task, placement)

    def _find_wait(self, task: PendingTask, placement: Placement) -> float | None:
        """Return until which Unix time a task waits for cheaper energy; None if it does not."""
        return None if task.kept_chance is None else self._planner.plan(placement, task.kept_chance)

    def _start(self, task: PendingTask, placement: Placement, arm: int) -> None:
        """Charge the namespace of a task that starts, and reserve its slots and its places."""
        now_s, row = self._now_s(), int(placement.rows[arm])
        work_s = float(placement.outlook.times.work_s[arm]) * placement.request.slots
        timer = self._timers.call_at(now_s + CREATION_PATIENCE_S, partial(self.release_room, task.key))
        self._claims.put(task.key, task.uid, task.namespace, Claim(work_s, row, timer), now_s)
        self._lines.remove(task.key, work_s=work_s)
        self._placer.reserve(placement, placement.names[arm])
        self._ranks.observe(placement, arm)
        self._standing.put(placement)

    def _await(self, task: PendingTask, placement: Placement) -> None:
        """Put a task into the line of its node; decisions about other tasks take it into account."""
        arm, request = placement.choice.awaited, placement.request
        line: Line = request.tiers, request.demand, request.avoided, request.model if request.is_served else None
        if placement.eligibility.is_impossible:
            line = NO_NODE
        elif arm is not None:
            line = int(placement.rows[arm])
            work_s = float(placement.outlook.times.work_s[arm])
            self._ledger.wait(task.uid, line, work_s, slots=request.slots, namespace=request.namespace)
        self._lines.wait(task.key, line, is_for_room=placement.is_for_room)

    def _await_sight(self, task: PendingTask, claim: Claim) -> None:
        claim.timer.cancel()
        claim.timer = self._timers.call_at(self._now_s() + SIGHT_PATIENCE_S, partial(self._miss_sight, task, claim))

    def _miss_sight(self, task: PendingTask, claim: Claim) -> None:
        """Have a pod created again that was never seen; if it exists after all, the API server denies the duplicate."""
        if task.uid in self._ledger:
            # It is bound: only the watch is late.
            self._await_sight(task, claim)
            return
        self._release_claim(task)
        self._queue(task)

    def _release_claim(self, task: PendingTask) -> None:
        """Release what a task was given, because no pod has come of it."""
        self.release_room(task.key)
        claim = self._claims.pop(task.key)
        if claim is not None:
            self._shares.refund(task.namespace, claim.work_s - EXAMINATION_S)

    def _postpone(self, task: PendingTask, denial: PodDenial) -> None:
        self._release_claim(task)
        self._postponed.put(task.key, task.namespace, self._ranks.rank(task), denial)

    def _requeue(self, key: str) -> None:
        task = self._tasks.get(key)
        if task is not None:
            self._deferred.remove(key)
            self._queue(task)

    def _queue(self, task: PendingTask) -> None:
        self._lines.add(task.key, self._ranks.rank(task), namespace=task.namespace, priority=task.priority)
