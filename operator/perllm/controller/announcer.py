"""Announces decisions and the ends of tasks: a log line for each, events, metrics.

All times count from the creation of the task, as in its status.
"""

import logging
from typing import Any

from perllm.api.task_status import TaskPhase, TaskStatus
from perllm.cluster.events import EventRecorder, Subject
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.summary import DELETED, describe_ending, list_ending
from perllm.controller.task import Task
from perllm.energy.attribution import Attribution
from perllm.energy.bill import BillMetrics
from perllm.metrics import OperatorMetrics
from perllm.placement.decision import Decision
from perllm.scheduling.admission import NO_MODEL_SERVER

log = logging.getLogger("perllm.decisions")


class Announcer:
    """Reports what happens to people; nothing depends on it.

    Attributes:
        endings: count how tasks ended.
    """

    def __init__(self, events: EventRecorder, metrics: OperatorMetrics, endings: EndMetrics, bill: BillMetrics) -> None:
        self._events = events
        self._metrics = metrics
        self.endings = endings
        self._bill = bill

    def placed(self, task: Task, decision: Decision) -> None:
        """Announce a decision that was carried out."""
        moment = decision.decided_s - task.received_s, task.valid_spec.deadline_s
        summary = describe_decision(decision, *moment)
        fields = {"event": "decision", "task": task.key, "uid": task.uid, **list_decision(decision, *moment)}
        log.info("%s %s", task.key, summary, extra=fields)
        if not decision.inference.is_served:
            # One per request would be a third of all writes; its status says the same.
            self._events.record(_subject(task), "Placed", summary)
        count_decision(self._metrics, decision)
        self.endings.note_placement(decision.assessment.excluded)

    def missed(self, task: Task, status: TaskStatus) -> None:
        """Announce that a task was not complete by its deadline, whether it still runs or has just completed."""
        deadline = task.valid_spec.deadline
        latency_s = status.observed.latency if status.observed else None
        note = f"not complete by its deadline of {deadline}; it continues"
        if latency_s is not None:
            note = f"complete after {latency_s:.2f} s, its deadline was {deadline}"
        self._events.record(_subject(task), "DeadlineMissed", note, warning=True)

    def ended(self, task: Task, status: TaskStatus) -> None:
        """Count a task that reached its final phase, and announce it if it did not succeed."""
        has_succeeded = status.phase is TaskPhase.SUCCEEDED
        latency_s = status.observed.latency if has_succeeded and status.observed else None
        self._metrics.tasks.note_end(
            status.phase.value, _find_tier(status), is_met=status.deadline_met, latency_s=latency_s
        )
        self.endings.note_end(status)
        self._bill.note_end(task.owner, status.phase.value, status.deadline_met, status.observed)
        if not has_succeeded:
            self._events.record(_subject(task), status.phase.value, status.message or "", warning=True)

    def settled(self, task: Task, status: TaskStatus, now_s: float) -> None:
        """Log the one line about a task that has ended and about which nothing more will be known.

        It includes the energy, so it is logged once that is measured or known to be missing. For a task that did not
        succeed that is its end, for a task that is deleted earlier its deletion.
        """
        if not status.phase.is_final:
            self._metrics.tasks.finished.labels(DELETED).inc()
            self._bill.note_end(task.owner, DELETED, None, None)
        is_as_wanted = status.deadline_met is True or status.phase is not TaskPhase.SUCCEEDED
        level = logging.INFO if is_as_wanted and status.phase is not TaskPhase.FAILED else logging.WARNING
        ending = describe_ending(task, status, now_s)
        log.log(level, "%s %s", task.key, ending, extra=list_ending(task, status, now_s))

    def measured(self, task: Task, status: TaskStatus, energy: Attribution, transmission_j: float) -> None:
        """Count an energy measurement, and the part of it that is an estimate for transmission."""
        self._metrics.tasks.note_energy(_find_tier(status), energy.quality.value, energy.energy_j)
        self._bill.note_measurement(task.owner, energy.quality, transmission_j)
        if status.node_name is not None:
            self.endings.note_transmission(status.node_name, transmission_j)

    def unserved(self, task: Task, note: str) -> None:
        """Announce that no node has a model server for a task."""
        self._events.record(_subject(task), NO_MODEL_SERVER, note, warning=True)

    def postponed(self, task: Task, note: str) -> None:
        """Announce why a task gets no pod for now."""
        self._events.record(_subject(task), "Postponed", note, warning=True)


def count_decision(metrics: OperatorMetrics, decision: Decision) -> None:
    """Count a decision that was carried out."""
    metrics.tasks.decisions.labels(decision.policy, decision.tier, str(decision.assessment.explored).lower()).inc()


def list_decision(decision: Decision, waited_s: float, deadline_s: float | None) -> dict[str, Any]:
    """Return a decision in fields for programs; `waited_s` is the time from creation to decision."""
    inference, forecast, assessment = decision.inference, decision.forecast, decision.assessment
    return {
        "node": decision.node,
        "tier": decision.tier.value,
        "gpu": decision.gpu_type,
        "policy": decision.policy,
        "waited_s": round(waited_s, 3),
        "predicted_latency_s": round(waited_s + forecast.times.latency_s, 3),
        "latency_low_s": round(waited_s + forecast.latency_low_s, 3),
        "latency_high_s": round(waited_s + forecast.latency_high_s, 3),
        "deadline_s": deadline_s,
        "hit_chance": round(forecast.hit_chance, 4),
        "harm": round(forecast.harm, 4),
        "output_tokens": round(inference.output_tokens, 1),
        "time_left_s": round(inference.time_left_s, 3),
        "predicted_energy_j": round(forecast.energy.energy_j, 2),
        "meets_deadline": assessment.meets_deadline,
        "explored": assessment.explored,
        "candidates": assessment.candidates,
        "rejected": dict(assessment.excluded),
        "reason": decision.reason,
    }


def describe_decision(decision: Decision, waited_s: float, deadline_s: float | None) -> str:
    """Return a decision in one line for people; `waited_s` is the time from creation to decision."""
    forecast, assessment = decision.forecast, decision.assessment
    verdict = "in time" if assessment.meets_deadline else "TOO LATE"
    due = (
        "since its creation, without a deadline"
        if deadline_s is None
        else f"of the {deadline_s:g} s since its creation, {verdict} with a chance of {forecast.hit_chance:.1%}"
    )
    excluded = ", ".join(f"{count} {reason}" for reason, count in assessment.excluded.items()) or "none"
    return (
        f"-> {decision.node} ({decision.tier}, {decision.gpu_type}) by {decision.policy}: "
        f"{waited_s + forecast.times.latency_s:.2f} s predicted ({waited_s + forecast.latency_low_s:.2f} to "
        f"{waited_s + forecast.latency_high_s:.2f} s) {due}; {forecast.energy.energy_j:.0f} J; {decision.reason}; "
        f"excluded nodes: {excluded}"
    )


def _find_tier(status: TaskStatus) -> str:
    return status.tier.value if status.tier else "none"


def _subject(task: Task) -> Subject:
    return Subject(task.namespace, task.name, task.uid)
