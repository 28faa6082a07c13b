"""The conditions of a task."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from perllm.api.task_status import Condition, ConditionType


@dataclass(frozen=True, slots=True)
class Note:
    """Why a task has no pod yet: reason of its condition Scheduled, and the message."""

    reason: str
    message: str


def set_condition(
    conditions: tuple[Condition, ...],
    kind: ConditionType,
    value: bool | None,
    reason: str,
    message: str,
    *,
    generation: int,
    now_s: float,
) -> tuple[Condition, ...]:
    """Return the conditions with one of them set; its transition time changes only when its value does."""
    status: Literal["True", "False", "Unknown"] = "Unknown" if value is None else "True" if value else "False"
    kept = {condition.type: condition for condition in conditions}
    old = kept.get(kind)
    if old is not None and old.status == status:
        new = old.change(observed_generation=generation, reason=reason, message=message)
        if new is old:
            return conditions
        kept[kind] = new
    else:
        since = datetime.fromtimestamp(int(now_s), UTC)
        kept[kind] = Condition(
            type=kind,
            status=status,
            observed_generation=generation,
            last_transition_time=since,
            reason=reason,
            message=message,
        )
    return tuple(kept.values())
