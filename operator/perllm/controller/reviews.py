"""Compares runs with their counterfactuals. Nothing depends on that, so a failure of it stops nothing."""

from perllm.guard import Guard
from perllm.learning.outcome import Outcome
from perllm.placement.counterfactual import Ending
from perllm.placement.decision import Decision
from perllm.scheduling.scheduler import Scheduler


class Reviews:
    """Reviews runs.

    Args:
        scheduler: knows the counterfactuals.
        guard: contains failures.
    """

    def __init__(self, scheduler: Scheduler, guard: Guard) -> None:
        self._scheduler = scheduler
        self._guard = guard

    def review(self, name: str, decision: Decision, *, due_s: float, outcome: Outcome | None) -> list[Ending]:
        """Compare a run, before it is learned from; return nothing without a counterfactual.

        Args:
            name: of the task, or of the pod.
            decision: by which it ran.
            due_s: Unix time of its deadline.
            outcome: of the run; None if it was ended at its deadline.
        """
        endings: list[Ending] = []

        def review() -> None:
            ending = self._scheduler.review(decision, due_s, outcome)
            endings.extend([] if ending is None else [ending])

        self._guard.run("savings", name, review, again=False)
        return endings
