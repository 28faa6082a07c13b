"""Matches outcomes with decisions: the arm, the deadline and the prompt of a `Feedback` identify the decision."""

from typing import Generic, TypeVar

from perllm.policy.problem import Feedback, TaskFeatures

Record = TypeVar("Record")

PER_ARM = 1024
"""Decisions remembered per arm; the oldest go first, so that those without an outcome do not pile up."""

_Key = tuple[float, float]


class Pending(Generic[Record]):
    """A record of each decision, by arm, until its outcome is known."""

    def __init__(self, per_arm: int = PER_ARM) -> None:
        self._per_arm = per_arm
        self._arms: dict[tuple[str, int], dict[_Key, Record]] = {}

    def put(self, task: TaskFeatures, row: int, record: Record) -> None:
        """Record a decision; one for the same arm, deadline and prompt replaces the one before."""
        records = self._arms.setdefault((task.model, row), {})
        key = (task.deadline_s, task.prompt_tokens)
        records.pop(key, None)
        records[key] = record
        if len(records) > self._per_arm:
            del records[next(iter(records))]

    def take(self, feedback: Feedback) -> Record | None:
        """Remove and return the decision of an outcome; None when there is none."""
        records = self._arms.get((feedback.model, feedback.row), {})
        return records.pop((feedback.deadline_s, feedback.prompt_tokens), None)

    def take_oldest(self, model: str, row: int) -> Record | None:
        """Remove and return the oldest decision for an arm; None when there is none."""
        records = self._arms.get((model, row))
        return records.pop(next(iter(records))) if records else None
