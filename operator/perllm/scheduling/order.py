"""In which order the waiting tasks of a namespace are examined."""

from enum import Enum

from perllm.placement.placer import Placement, Placer
from perllm.scheduling.laxity import ResidenceTimes
from perllm.scheduling.pending import PendingTask
from perllm.scheduling.ranking import Rank


class Order(Enum):
    """An order of waiting tasks."""

    URGENCY = "priority, then least laxity"
    DEADLINE = "deadline"
    ARRIVAL = "arrival"


class TaskRanks:
    """Ranks tasks before a node is sought for them.

    Args:
        order: of the tasks.
        placer: knows the lengths of answers.
    """

    def __init__(self, order: Order, placer: Placer) -> None:
        self._order = order
        self._placer = placer
        self._residence_times = ResidenceTimes()

    def observe(self, placement: Placement, arm: int) -> None:
        """Update the expected residence time of tasks of a model by one that is placed."""
        self._residence_times.observe(placement, arm)

    def rank(self, task: PendingTask) -> Rank:
        """Return the rank of a task; the smaller goes first."""
        request = task.request
        if self._order is Order.ARRIVAL:
            return (request.due_s - request.deadline_s,)
        if self._order is Order.DEADLINE:
            return (request.due_s,)
        length = self._placer.expect_length(request)
        residence_s = self._residence_times.expect_s(request.model, request.prompt_tokens, length.mean)
        return -task.priority, request.due_s - residence_s
