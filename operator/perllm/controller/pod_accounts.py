"""Keeps in-flight tasks, energy windows and the health of nodes in line with the pods of tasks."""

from collections.abc import Callable
from dataclasses import replace

from perllm.cluster.node import Node
from perllm.cluster.pod import Pod
from perllm.cluster.pod_ends import PodPatience, call_end, doubt_end, is_refusal
from perllm.controller.lifecycle import find_closed_s
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.tracking import Tracked
from perllm.energy.settlement import Settlement
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.placement.decision import Decision
from perllm.placement.demand import NO_POD
from perllm.scheduling.scheduler import Scheduler


class PodAccounts:
    """Accounts for the pods of tasks.

    Args:
        scheduler: counts the tasks in flight.
        settlement: measures energy.
        node_health: judges nodes by the ends of pods.
        outcomes: learns from tasks that were ended at their deadlines.
        metrics: count the pods that nodes refuse, or that are replaced.
        patience: how long pods may take.
        node_of: returns a node by its name; None if it is not in the fleet.
        unix_now: wall clock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settlement: Settlement,
        node_health: NodeHealth,
        outcomes: OutcomeLearner,
        metrics: OperatorMetrics,
        *,
        patience: PodPatience,
        node_of: Callable[[str], Node | None] = lambda _: None,
        unix_now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._settlement = settlement
        self._node_health = node_health
        self._outcomes = outcomes
        self._metrics = metrics
        self._patience = patience
        self._node_of = node_of
        self._unix_now = unix_now

    def note_change(self, pod: Pod, before: Pod | None, model: str | None) -> None:
        """Note that a pod was added or changed; `model` is that of its task, None while the task is not known."""
        if is_refusal(pod) and not (before and is_refusal(before)):
            self._metrics.fleet.refusals.inc()
        if pod.misfit and pod.is_deleting and not (before and before.is_deleting):
            self._metrics.fleet.replaced.inc()
        if model is not None:
            self._node_health.see(before, pod, model)

    def account(self, tracked: Tracked, pod: Pod, *, is_gone: bool = False) -> None:
        """Bring the in-flight tasks and their energy windows in line with a pod."""
        if pod.node is None:
            return
        decision = tracked.decision_of(pod)
        is_superseded = any(other.attempt > pod.attempt for other in tracked.pods.values())
        if decision is not None and (is_gone or pod.is_finished or pod.has_left_slots):
            self._settlement.end(pod, self._unix_now(), tracked.task.owner)
        if is_gone or pod.has_left_slots or (pod.is_finished and pod.linger_s is None):
            if is_superseded:
                self._scheduler.free(pod.node)
                return
            tracked.residence = self._scheduler.end(pod.task_uid, pod.node, pod.output_tokens) or tracked.residence
            self._outcomes.learn_ended(tracked, pod, decision)
        elif decision is not None and not is_superseded:
            self._count(tracked, pod, decision)
            if not pod.is_finished:
                self._settlement.begin(pod, decision.inference.prompt_tokens, self._unix_now(), tracked.task.owner)

    def count_again(self, tracked: Tracked) -> None:
        """Count a task as in flight, if its pods say so."""
        pod = find_flying(tracked)
        decision = None if pod is None else tracked.decision_of(pod)
        if pod is not None and decision is not None:
            self._count(tracked, pod, decision)

    def _count(self, tracked: Tracked, pod: Pod, decision: Decision) -> None:
        demand = NO_POD if pod.is_served else tracked.task.demand
        self._scheduler.confirm(decision, demand.slots, demand.resource)

    def find_flight(self, tracked: Tracked) -> Decision | None:
        """Return the decision by which a task is in flight, going by its pods; None if it is not."""
        pod = find_flying(tracked)
        return None if pod is None else tracked.decision_of(pod)

    def call_ends(self, tracked: Tracked, now_s: float, *, is_current: bool) -> None:
        """Treat pods as ended that the operator no longer waits for, and doubt the ends that nodes did not report.

        None is given up for not having started that is not known as it is now.
        """
        task = tracked.task
        if task.spec is None:
            return
        for name, pod in list(tracked.pods.items()):
            node = None if pod.node is None else self._node_of(pod.node)
            called = call_end(pod, self._patience, task.due_s, now_s, is_current=is_current)
            called = doubt_end(called, node, self._patience, now_s)
            closed_s = find_closed_s(task, pod)
            if closed_s is not None and now_s >= closed_s:
                called = replace(called, has_left_slots=True)
            if called != pod:
                tracked.pods[name] = called
                self.note_change(called, pod, task.spec.model)
                self.account(tracked, called)


def find_flying(tracked: Tracked) -> Pod | None:
    """Return the pod by which a task occupies a node; None if it occupies none."""
    last = max(tracked.pods.values(), key=lambda pod: pod.attempt, default=None)
    if last is None or last.node is None or last.has_left_slots or (last.is_finished and last.linger_s is None):
        return None
    return last
