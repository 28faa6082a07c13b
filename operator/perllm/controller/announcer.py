"""Says what was decided and what became of it: one log line per decision, events, metrics."""

import logging

from perllm.api.task import Tier
from perllm.api.task_status import Phase, TaskStatus
from perllm.cluster.events import EventRecorder, Subject
from perllm.controller.task import Task
from perllm.metrics import OperatorMetrics
from perllm.placement.decision import Decision
from perllm.telemetry.attribution import Attribution

log = logging.getLogger("perllm.decisions")


class Announcer:
    """Tells people; nothing depends on it."""

    def __init__(self, events: EventRecorder, metrics: OperatorMetrics) -> None:
        self._events = events
        self._metrics = metrics

    def placed(self, task: Task, decision: Decision) -> None:
        """Announce a decision that was carried out."""
        summary = describe(decision)
        rejected = ", ".join(f"{count} {reason}" for reason, count in decision.rejected.items()) or "none"
        log.info(
            "%s %s",
            task.key,
            summary,
            extra={
                "event": "decision",
                "task": task.key,
                "uid": task.uid,
                "node": decision.node,
                "tier": decision.tier.value,
                "gpu": decision.gpu_type,
                "policy": decision.policy,
                "predicted_latency_s": round(decision.latency_s, 3),
                "latency_low_s": round(decision.latency_low_s, 3),
                "latency_high_s": round(decision.latency_high_s, 3),
                "hit_chance": round(decision.hit_chance, 4),
                "harm": round(decision.harm, 4),
                "output_tokens": round(decision.output_tokens, 1),
                "time_left_s": round(decision.time_left_s, 3),
                "predicted_energy_j": round(decision.energy_j, 2),
                "meets_deadline": decision.meets_deadline,
                "explored": decision.explored,
                "candidates": decision.candidates,
                "rejected": dict(decision.rejected),
                "reason": decision.reason,
            },
        )
        self._events.record(_subject(task), "Placed", f"{summary}. Refused nodes: {rejected}.")
        self._metrics.decisions.labels(decision.policy, decision.tier, str(decision.explored).lower()).inc()

    def ended(self, task: Task, status: TaskStatus) -> None:
        """Announce that a task reached its final phase."""
        self._metrics.finished.labels(status.phase.value).inc()
        latency_s = status.observed.latency if status.observed else None
        tier = status.tier.value if status.tier else "none"
        if status.deadline_met is not None:
            self._metrics.deadlines.labels(tier, str(status.deadline_met).lower()).inc()
        if status.phase is Phase.SUCCEEDED and latency_s is not None:
            self._metrics.latency.labels(tier).observe(latency_s)
            note = f"complete after {latency_s:.2f} s of {task.valid_spec.deadline_s:g} s"
            if not status.deadline_met:
                self._events.record(_subject(task), "DeadlineMissed", note, warning=True)
        else:
            note = status.message or ""
            self._events.record(_subject(task), status.phase.value, note, warning=True)
        log.info("%s %s: %s", task.key, status.phase.value.lower(), note, extra={"event": "ended", "task": task.key})

    def measured(self, tier: Tier | None, energy: Attribution) -> None:
        """Count an energy measurement."""
        self._metrics.energy_quality.labels(energy.quality.value).inc()
        if energy.energy_j is not None and tier is not None:
            self._metrics.energy.labels(tier.value).observe(energy.energy_j)

    def postponed(self, task: Task, note: str) -> None:
        """Announce why a task gets no pod for now."""
        self._events.record(_subject(task), "Postponed", note, warning=True)


def describe(decision: Decision) -> str:
    """Return a decision in one line for people."""
    verdict = "within" if decision.meets_deadline else "MISSES"
    return (
        f"-> {decision.node} ({decision.tier}, {decision.gpu_type}): {decision.latency_s:.2f} s predicted "
        f"({decision.latency_low_s:.2f} to {decision.latency_high_s:.2f} s), {verdict} the "
        f"{decision.time_left_s:.2f} s left at {decision.hit_chance:.1%}, {decision.energy_j:.0f} J; "
        f"{decision.reason}; "
        f"{decision.candidates} candidates, {sum(decision.rejected.values())} refused"
    )


def _subject(task: Task) -> Subject:
    return Subject(task.namespace, task.name, task.uid)
