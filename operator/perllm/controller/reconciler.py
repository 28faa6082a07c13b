"""Brings the status of each task, and what is done about it, in line with what is known about it.

lifecycle.advance (pure)  ->  status, queue, deletions, energy, the next reconciliation
"""

import asyncio
from collections.abc import Callable
from functools import partial

from perllm.api.task_status import Observation, RunsAs, TaskPhase, TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.informer import object_key
from perllm.cluster.pod import Pod
from perllm.cluster.pod_ends import PodPatience, next_look_s
from perllm.controller import lifecycle
from perllm.controller.announcer import Announcer
from perllm.controller.conditions import Note
from perllm.controller.decisions import Decisions
from perllm.controller.explanations import USUAL_MESSAGES
from perllm.controller.pod_accounts import PodAccounts
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.served_runs import lose_run
from perllm.controller.stages import note_energy
from perllm.controller.status_writer import StatusWriter, read_stored
from perllm.controller.summary import is_settled
from perllm.controller.suspensions import Suspensions
from perllm.controller.task import Task, read_status
from perllm.controller.tracking import Tracked, Tracking
from perllm.costs.service import Charge, Expense, charge_nothing
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.nodes.node_health import find_avoided
from perllm.scheduling.scheduler import Scheduler

PROGRESS_DELAY_S = 3.0
"""How long a status waits to be written that only says how far a task is: most are replaced by then."""

UNFINISHED_DELAY_S = 1.0
"""The same for a status with a message for people, which another one may follow at once."""

PODS_PAUSE_S = 10.0
"""How often a task is examined whose pods cannot be listed yet."""

BLIND_PAUSE_S = 5.0
"""How often a task is examined whose deadline, or whose time to start, has passed in an outage of the API server."""

LOOK_S = 60.0
"""How often a task that waits for a time is looked at: the clock may be set to another time meanwhile."""

DELAYED_PER_S = 10.0
MAX_DELAY_S = 30.0
"""Statuses wait longer while there are many, so that about `DELAYED_PER_S` are written per second, but no longer than
this."""


class Reconciler:
    """Reconciles tasks.

    Args:
        tracking: the tasks.
        scheduler: queues those that need a pod.
        accounts: treat pods as ended that are no longer waited for.
        settlement: measures energy.
        decisions: remember which decision bound a pod.
        suspensions: know which tasks may not run for now.
        pods: deletes pods and tasks.
        writer: writes statuses.
        announcer: announces what has changed.
        guard: contains failures about single tasks.
        patience: how long pods may take.
        has_pods: whether the pods of a namespace were listed; without them a task may seem to need one that it has.
        is_current: whether tasks and pods of a namespace are known as they are, not as they were before an outage.
        unix_now: wall clock.
        charge: returns what the energy of a task cost, by namespace, node, Unix time and joules.
    """

    def __init__(
        self,
        tracking: Tracking,
        scheduler: Scheduler,
        *,
        accounts: PodAccounts,
        settlement: Settlement,
        decisions: Decisions,
        suspensions: Suspensions,
        pods: PodKeeper,
        writer: StatusWriter,
        announcer: Announcer,
        guard: Guard,
        patience: PodPatience,
        has_pods: Callable[[str], bool],
        is_current: Callable[[str], bool],
        unix_now: Callable[[], float],
        charge: Charge = charge_nothing,
    ) -> None:
        self._tracking = tracking
        self._scheduler = scheduler
        self._accounts = accounts
        self._settlement = settlement
        self._decisions = decisions
        self._suspensions = suspensions
        self._pods = pods
        self._writer = writer
        self._announcer = announcer
        self._guard = guard
        self._patience = patience
        self._has_pods = has_pods
        self._is_current = is_current
        self._unix_now = unix_now
        self._charge = charge

    def reconcile(self, key: str) -> None:
        """Reconcile a task; if that fails, its status says so, and it is retried."""
        self._guard.run("task state", key, partial(self._reconcile, key), on_fault=partial(self.report_fault, key))

    def report_fault(self, key: str, words: str) -> None:
        """Report in a tracked task's status that PerLLM failed on it."""
        tracked = self._tracking.get(key)
        if tracked is not None:
            tracked.put = None
            self._put_fault(key, tracked.task.uid, tracked.status, words)

    def report_unread(self, item: Object, words: str) -> None:
        """Report in a task's status that PerLLM failed on it, maybe before it was tracked; keep the rest of it."""
        key, uid = object_key(item), item["metadata"]["uid"]
        if self._tracking.find(key, uid) is not None:
            self.report_fault(key, words)
            return
        stored = read_stored(item)
        self._writer.seed(key, stored)
        self._put_fault(key, uid, read_status(stored.fields), words)

    def _put_fault(self, key: str, uid: str, status: TaskStatus, words: str) -> None:
        if not status.phase.is_final:
            message = f"PerLLM failed on this task and will retry: {words}"
            self._writer.put(key, uid, status.change(message=message))

    def reject(self, tracked: Tracked, reason: str, message: str) -> None:
        """End a task without running it."""
        task, status = tracked.task, tracked.status
        if not status.phase.is_final:
            self._adopt(tracked, lifecycle.reject(task, status, reason, message, self._unix_now()))
        self.reconcile(task.key)

    def begin(self, tracked: Tracked, run: Pod) -> None:
        """Begin an attempt of a served task: its status, once stored, is the order to the agent of the node."""
        tracked.pods[run.name] = run
        self._accounts.account(tracked, run)
        self.reconcile(tracked.task.key)

    def lose(self, tracked: Tracked, run: Pod) -> None:
        """Treat an attempt of a served task as lost with the agent of its node."""
        lost = tracked.pods[run.name] = lose_run(run)
        self._accounts.note_change(lost, run, tracked.task.valid_spec.model)
        self._accounts.account(tracked, lost)
        self.reconcile(tracked.task.key)

    def remove(self, pod: Pod) -> None:
        """Remove the pod of an attempt that is a request: its creation seemed to have failed."""
        self._pods.remove(pod)

    def explain(self, tracked: Tracked, note: Note) -> bool:
        """Explain in a task's status why it has no pod; return whether that is new."""
        if tracked.note == note or tracked.status.phase.is_final:
            return False
        tracked.note = note
        status = lifecycle.note_wait(tracked.task, tracked.status, note, tracked.cause, self._unix_now())
        self._adopt(tracked, status)
        return True

    def forget(self, key: str) -> None:
        """Drop everything about a task that no longer exists, or about which nothing more will be known."""
        for kind in ("task", "task state", "outcome"):
            self._guard.clear(kind, key)
        self._writer.forget(key)
        tracked = self._tracking.pop(key)
        if tracked is None:
            return
        if not is_settled(tracked.status):
            self._announcer.settled(tracked.task, tracked.status, self._unix_now())
        if tracked.timer is not None:
            tracked.timer.cancel()
        self._scheduler.forget(key, tracked.task.uid)
        self._suspensions.forget(key, tracked.task.uid)
        self._clear_queue_faults(key)
        for pod in tracked.pods.values():
            self._settlement.forget(pod.uid)
            self._decisions.forget(pod.uid)

    def _reconcile(self, key: str) -> None:
        tracked = self._tracking.get(key)
        if tracked is None:
            return  # deleted since this was planned
        if not (self._has_pods(tracked.task.namespace) or _needs_no_pod(tracked)):
            self._wait_for_pods(tracked)
            return
        # The clock is read once: what falls due between two readings would be neither done nor waited for.
        task, now_s = self._suspensions.assign(tracked.task), self._unix_now()
        if task is not tracked.task:
            # It is not to start on the nodes that it was queued for.
            self._scheduler.withdraw(key)
            tracked.task = task
        is_current = self._is_current(task.namespace)
        self._accounts.call_ends(tracked, now_s, is_current=is_current)
        step = lifecycle.advance(
            task,
            tracked.status,
            tracked.all_pods,
            now_s,
            tracked.note,
            suspension=self._suspensions.find(task, tracked.status, tracked.pods.values()),
            is_current=is_current,
        )
        tracked.cause = step.cause
        self._adopt(tracked, step.status)
        if step.attempt is not None:
            self._scheduler.submit(task.to_pending(step.attempt, find_avoided(tracked.judged_pods)))
        elif step.replaced is not None:
            tracked.widened = step.replaced.attempt
            self._scheduler.retract(key)
        else:
            tracked.note = None
            if step.status.phase.is_final or step.is_suspended or step.status.node_name is not None:
                self._scheduler.withdraw(key)
                self._clear_queue_faults(key)
            else:
                self._scheduler.note_pod(key)
        for pod in step.doomed:
            self._end_pod(tracked, pod)
        if step.finished is not None:
            self._settle(tracked, step.finished)
        self._suspensions.report(task, tracked.status, tracked.pods.values())
        self._schedule(tracked, step, now_s)

    def _wait_for_pods(self, tracked: Tracked) -> None:
        if not tracked.status.phase.is_final:
            message = f"waiting until the pods of namespace {tracked.task.namespace} can be read"
            self._adopt(tracked, tracked.status.change(message=message))
        if tracked.timer is not None:
            tracked.timer.cancel()
        self._set_timer(tracked, PODS_PAUSE_S, None)

    def _end_pod(self, tracked: Tracked, pod: Pod) -> None:
        """End a pod that is not needed any more. The agent ends a request when it sees the status of the task."""
        if not pod.is_served:
            self._pods.delete_pod(pod)
            return
        tracked.pods.pop(pod.name, None)
        self._accounts.account(tracked, pod, is_gone=True)

    def _clear_queue_faults(self, key: str) -> None:
        for kind in ("placement", "pod creation", "denied pod"):
            self._guard.clear(kind, key)

    def _adopt(self, tracked: Tracked, status: TaskStatus) -> None:
        """Set the status of a task, announce what is new in it, and queue it to be written."""
        task, before = tracked.task, tracked.status
        tracked.status = status
        if status == tracked.put:
            return
        if status.node_name and (status.node_name, status.pod_name) != (before.node_name, before.pod_name):
            pod = tracked.find_pod(status.pod_name)
            decision = tracked.decision_of(pod) if pod else None
            if decision is not None:
                self._announcer.placed(task, decision)
        has_failed = status.phase in (TaskPhase.FAILED, TaskPhase.REJECTED)
        if status.deadline_met is False and before.deadline_met is not False and not has_failed:
            self._announcer.missed(task, status)
        if status.phase.is_final and not before.phase.is_final:
            self._announcer.ended(task, status)
        if is_settled(status) and not is_settled(before):
            self._announcer.settled(task, status, self._unix_now())
        delay_s = _find_delay_s(before, status, self._writer.delayed)
        self._writer.put(task.key, task.uid, status, delay_s=delay_s)
        tracked.put = status

    def _settle(self, tracked: Tracked, pod: Pod) -> None:
        """Measure the energy of a finished task as soon as the metrics cover its run."""
        observed = tracked.status.observed
        if observed is None or observed.energy_quality is not None:
            return
        decision = tracked.decision_of(pod)
        transmission_energy_j = decision.forecast.energy.transmission_energy_j if decision else 0.0
        measured = self._settlement.measure(pod, transmission_energy_j, self._unix_now())
        if measured is None:
            return
        expense = self._find_expense(tracked, observed, measured.energy_j)
        observed = note_energy(observed, measured, transmission_energy_j, expense)
        self._announcer.measured(tracked.task, tracked.status, measured, transmission_energy_j)
        self._adopt(tracked, tracked.status.change(observed=observed))

    def _find_expense(self, tracked: Tracked, observed: Observation, energy_j: float | None) -> Expense:
        """Return what the energy of a task cost, by the tariffs in the middle of its run."""
        task, node = tracked.task, tracked.status.node_name
        if energy_j is None or node is None:
            return Expense()
        at_s = task.received_s + (observed.latency or 0.0) - (observed.inference or 0.0) / 2.0
        return self._charge(task.namespace, node, at_s, energy_j)

    def _schedule(self, tracked: Tracked, step: lifecycle.Step, now_s: float) -> None:
        """Plan the next reconciliation for when time alone changes something."""
        if tracked.timer is not None:
            tracked.timer.cancel()
            tracked.timer = None
        task, status = tracked.task, tracked.status
        if task.spec is None:
            return
        pods, is_current = tracked.pods.values(), self._is_current(task.namespace)
        looks_s = [next_look_s(pod, self._patience, task.due_s, now_s) for pod in pods]
        looks_s += [lifecycle.find_closed_s(task, pod) for pod in pods]
        waits_s = [look_s - now_s for look_s in looks_s if look_s is not None and look_s > now_s]
        if not is_current and any(look_s is not None and look_s <= now_s for look_s in looks_s):
            waits_s.append(BLIND_PAUSE_S)
        unmeasured: Pod | None = None
        if not status.phase.is_final:
            verdict_s = lifecycle.find_verdict_s(task, tracked.all_pods)
            if verdict_s > now_s:
                waits_s.append(verdict_s - now_s)
            elif lifecycle.may_be_in_time(tracked.judged_pods, is_current=is_current):
                waits_s.append(BLIND_PAUSE_S)
        elif status.observed is not None and status.observed.energy_quality is None and step.finished is not None:
            unmeasured = None if waits_s else step.finished
            waits_s.append(self._settlement.find_pause_s(step.finished, now_s))
        if waits_s:
            self._set_timer(tracked, min(waits_s), unmeasured)

    def _set_timer(self, tracked: Tracked, pause_s: float, unmeasured: Pod | None) -> None:
        """Look at a task again after a pause; `unmeasured` is its pod if nothing but the energy of that is awaited."""
        work = partial(self._wake, tracked.task, unmeasured, self._unix_now() + pause_s)
        loop, key = asyncio.get_running_loop(), tracked.task.key
        guarded = partial(self._guard.run, "task state", key, work, on_fault=partial(self.report_fault, key))
        tracked.timer = loop.call_later(min(max(pause_s, 0.0) + 0.001, LOOK_S), guarded)

    def _wake(self, task: Task, unmeasured: Pod | None, due_s: float) -> None:
        tracked, now_s = self._tracking.find(task.key, task.uid), self._unix_now()
        if tracked is None:
            return
        if now_s < due_s:
            self._set_timer(tracked, due_s - now_s, unmeasured)
        elif unmeasured is not None and self._settlement.is_awaited(unmeasured, now_s):
            self._set_timer(tracked, self._settlement.find_pause_s(unmeasured, now_s), unmeasured)
        else:
            self._reconcile(task.key)


def _needs_no_pod(tracked: Tracked) -> bool:
    """Whether a task has no pod, whichever there are, since it runs as a request or cannot run."""
    spec = tracked.task.spec
    return spec is None or (spec.is_served and tracked.status.runs_as is not RunsAs.POD)


def _find_delay_s(before: TaskStatus, status: TaskStatus, delayed: int) -> float:
    """Return how long a status may wait to be written, while `delayed` others wait."""
    # The number of a pod that is replaced is not free until that is stored.
    is_replacement = status.attempts < before.attempts
    if status.phase.is_final or is_replacement or _is_order(before, status):
        return 0.0
    delay_s = PROGRESS_DELAY_S if status.message in USUAL_MESSAGES else UNFINISHED_DELAY_S
    # A pod that has ended, or is being deleted, is retained until that is stored.
    is_setback = status.phase is TaskPhase.PENDING and before.phase is not TaskPhase.PENDING
    return delay_s if is_setback else max(delay_s, min(delayed / DELAYED_PER_S, MAX_DELAY_S))


def _is_order(before: TaskStatus, status: TaskStatus) -> bool:
    """Whether a status makes an agent begin or end a request."""
    is_served = RunsAs.REQUEST in (before.runs_as, status.runs_as)
    return is_served and (before.node_name, before.attempts) != (status.node_name, status.attempts)
