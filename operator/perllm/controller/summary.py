"""How a task ended, in one line for people and in fields for programs; pure functions.

All times count from the creation of the task, both predicted and observed.
"""

from typing import Any

from perllm.api.task_status import ConditionType, TaskPhase, TaskStatus
from perllm.controller.task import Task

DELETED = "Deleted"


def is_settled(status: TaskStatus) -> bool:
    """Whether a task has ended and nothing more will be known about it: its energy is measured, or never will be."""
    return status.phase.is_final and (status.observed is None or status.observed.energy_quality is not None)


def name_outcome(status: TaskStatus) -> str:
    """Return the final phase, or that the task was deleted before it reached one."""
    return status.phase.value if status.phase.is_final else DELETED


def elapsed_s(task: Task, status: TaskStatus, now_s: float) -> float:
    """Return the seconds from creation to end; until now, for a task that was deleted before its end."""
    if status.observed is not None and status.observed.latency is not None:
        return status.observed.latency
    ended_s = status.completion_time.timestamp() if status.completion_time else now_s
    return max(ended_s - task.received_s, 0.0)


def describe_ending(task: Task, status: TaskStatus, now_s: float) -> str:
    """Return how a task ended, without its name."""
    due = f" of the {task.spec.deadline_s:g} s" if task.spec else ""
    parts = [
        f"{_describe_outcome(status)}{_describe_place(status)} after {elapsed_s(task, status, now_s):.2f} s{due} since "
        f"its creation{_describe_prediction(status)}",
        *_describe_energy(status),
        f"{status.attempts} attempt{'' if status.attempts == 1 else 's'}",
    ]
    words = f": {status.message}" if status.message and status.phase in (TaskPhase.FAILED, TaskPhase.REJECTED) else ""
    return "; ".join(parts) + words


def list_ending(task: Task, status: TaskStatus, now_s: float) -> dict[str, Any]:
    """Return everything that is known about a task that ended; what is not known is None."""
    decision, observed = status.decision, status.observed
    return {
        "event": "ended",
        "task": task.key,
        "uid": task.uid,
        "model": task.spec.model if task.spec else None,
        "outcome": name_outcome(status),
        "reason": find_reason(status),
        "detail": status.message,
        "policy": decision.policy if decision else None,
        "node": status.node_name,
        "tier": status.tier.value if status.tier else None,
        "gpu": status.gpu_type,
        "attempts": status.attempts,
        "deadline_s": task.spec.deadline_s if task.spec else None,
        "deadline_met": status.deadline_met if status.phase.is_final else None,
        "elapsed_s": round(elapsed_s(task, status, now_s), 3),
        "predicted_latency_s": decision.predicted_latency if decision else None,
        "observed_latency_s": observed.latency if observed else None,
        "hit_chance": decision.hit_chance if decision else None,
        "predicted_energy_j": decision.predicted_energy if decision else None,
        "observed_energy_j": observed.energy_joules if observed else None,
        "energy_quality": observed.energy_quality.value if observed and observed.energy_quality else None,
    }


def _describe_outcome(status: TaskStatus) -> str:
    if not status.phase.is_final:
        return f"deleted while {status.phase.value.lower()}"
    if status.phase is TaskPhase.SUCCEEDED and not status.deadline_met:
        return "succeeded but MISSED its deadline"
    return "succeeded in time" if status.phase is TaskPhase.SUCCEEDED else status.phase.value.lower()


def _describe_place(status: TaskStatus) -> str:
    if status.node_name is None:
        return ""
    kind = f" ({status.tier}, {status.gpu_type})" if status.tier else ""
    policy = f", placed by {status.decision.policy}," if status.decision else ""
    return f" on {status.node_name}{kind}{policy}"


def _describe_prediction(status: TaskStatus) -> str:
    predicted_s = status.decision.predicted_latency if status.decision else None
    return "" if predicted_s is None else f", {predicted_s:.2f} s predicted"


def _describe_energy(status: TaskStatus) -> list[str]:
    if status.decision is None or status.decision.predicted_energy is None:
        return []
    observed = status.observed
    known = observed is not None and observed.energy_joules is not None and observed.energy_quality is not None
    measured = (
        f"{observed.energy_joules:.0f} J ({observed.energy_quality})" if observed and known else "energy not measured"
    )
    return [f"{measured}, {status.decision.predicted_energy:.0f} J predicted"]


def find_reason(status: TaskStatus) -> str:
    """Return the cause in one word, which is the reason of the condition Completed."""
    if not status.phase.is_final:
        return DELETED
    completed = (one.reason for one in status.conditions if one.type == ConditionType.COMPLETED)
    return next(completed, status.phase.value)
