"""Passes on to the scheduler what there is to learn from tasks that have ended."""

from collections.abc import Callable
from functools import partial

from perllm.api.task_status import Observation
from perllm.cluster.pod import Pod
from perllm.cluster.pod_ends import is_lost
from perllm.controller import lifecycle
from perllm.controller.evidence import find_fault
from perllm.controller.outcomes import build_outcome
from perllm.controller.reviews import Reviews
from perllm.controller.status_writer import Fields
from perllm.controller.tracking import Tracked, Tracking
from perllm.guard import Guard
from perllm.learning.revisions import Revisions
from perllm.metrics import OperatorMetrics
from perllm.placement.counterfactual import Savings
from perllm.placement.decision import Decision
from perllm.placement.fleet import Fleet
from perllm.placement.hindsight import judge_ended
from perllm.scheduling.scheduler import Scheduler

MAX_ENDING_S = 40.0
"""A deleted pod is gone within this time, which includes its grace period of 30 s, unless its node does not respond."""


class OutcomeLearner:
    """Learns from every outcome once, after it is stored, so that a crash can repeat the learning but never lose it.

    Args:
        tracking: the tasks.
        scheduler: learns.
        fleet: the nodes.
        metrics: count what is learned.
        savings: compare what tasks took with the counterfactual.
        revisions: which of the learned state are stored.
        guard: contains failures about single outcomes.
        unix_now: wall clock.
    """

    def __init__(
        self,
        tracking: Tracking,
        scheduler: Scheduler,
        fleet: Fleet,
        metrics: OperatorMetrics,
        *,
        savings: Savings,
        revisions: Revisions,
        guard: Guard,
        unix_now: Callable[[], float],
    ) -> None:
        self._tracking = tracking
        self._scheduler = scheduler
        self._fleet = fleet
        self._metrics = metrics
        self._savings = savings
        self._revisions = revisions
        self._guard = guard
        self._reviews = Reviews(scheduler, guard)
        self._unix_now = unix_now

    def note_written(self, key: str, fields: Fields) -> None:
        """Note that a status is stored."""
        tracked = self._tracking.get(key)
        if tracked is not None and (fields.get("observed") or {}).get("energyQuality") is not None:
            self.learn(tracked)

    def learn(self, tracked: Tracked) -> None:
        """Learn from a task if its energy is settled; the learner recognises outcomes that it has learned before."""
        observed = tracked.status.observed
        if observed is not None and observed.energy_quality is not None:
            self._guard.run("outcome", tracked.task.key, partial(self._learn, tracked))

    def is_recorded(self, tracked: Tracked) -> bool:
        """Whether a settled task's outcome is part of the stored learned state, or there is nothing to learn."""
        self.learn(tracked)
        return tracked.is_learned and self.is_stored(tracked)

    def is_stored(self, tracked: Tracked) -> bool:
        """Whether nothing of what was learned from a task would be lost if this process ended now."""
        return self._revisions.is_stored(tracked.status.node_name or "", tracked.revision)

    def learn_ended(self, tracked: Tracked, pod: Pod, decision: Decision | None) -> None:
        """Learn from a task that was ended at its deadline, unless its node may have been the cause."""
        task, status = tracked.task, tracked.status
        if decision is None or not lifecycle.is_ended_at_deadline(status) or pod.name != status.pod_name:
            return
        node = self._fleet.nodes.get(decision.node)
        was_at_once = self._unix_now() <= task.due_s + MAX_ENDING_S
        is_about_it = not (pod.is_disrupted or is_lost(pod) or pod.was_restarted)
        if node is not None and node.is_open and was_at_once and is_about_it:
            endings = self._reviews.review(task.key, decision, due_s=task.due_s, outcome=None)
            if self._scheduler.learn_ended(judge_ended(decision, task.due_s, tracked.residence, pod.prompts)):
                self._savings.note(*endings)

    def _learn(self, tracked: Tracked) -> None:
        observed, pod = tracked.status.observed, tracked.find_pod(tracked.status.pod_name)
        if tracked.is_learned or observed is None or pod is None:
            return
        decision = tracked.decision_of(pod)
        if pod.decision_record is not None:
            self._learn_run(tracked, observed, pod, decision)
        tracked.is_learned = True

    def _learn_run(self, tracked: Tracked, observed: Observation, pod: Pod, decision: Decision | None) -> None:
        fault = find_fault(tracked.task.received_s + (observed.latency or 0.0), observed, pod, decision)
        if fault is not None:
            self._metrics.learning.discarded.labels(fault).inc()
        if fault is not None or decision is None or pod.was_restarted:
            return
        outcome = build_outcome(tracked.task, tracked.status, pod, decision, tracked.residence)
        if outcome is None:
            return
        task = tracked.task
        endings = self._reviews.review(task.key, decision, due_s=task.due_s, outcome=outcome)
        reward = self._scheduler.learn(outcome, decision.gpu_type)
        tracked.revision = self._revisions.current(outcome.run.node)
        if reward is not None:
            self._metrics.learning.learned.inc()
            self._metrics.learning.reward.observe(reward)
            self._savings.note(*endings)
