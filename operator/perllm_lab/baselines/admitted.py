"""A baseline under our whole admission.

Our policy says on which nodes a task is worth starting, and when it is given up; the baseline says where it goes.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from perllm.policy.problem import Arms, BoolArray, Choice, Feedback, Policy, TaskFeatures, Verdict

ENERGY = "energy"
"""The term of our scores that ranks nodes and admits none."""


class Admitted:
    """Places a task by a baseline, among the nodes on which our policy would start it.

    While there is no such node the task waits, or is rejected, as if our policy placed it; probes are our policy's too.

    Args:
        baseline: chooses among the nodes that are left.
        ours: the policy whose admission it is.
        floor: net value above which that policy starts a task.
    """

    def __init__(self, baseline: Policy, ours: Policy, floor: float) -> None:
        self.name = baseline.name
        self._baseline = baseline
        self._ours = ours
        self._floor = floor

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose by the baseline where our policy admits the task; else decide as our policy does."""
        ours = self._ours.choose(task, arms)
        worth = self._find_worth(ours)
        if not worth.any():
            return ours
        choice = self._baseline.choose(task, replace(arms, allowed=arms.allowed & worth))
        return replace(choice, verdict=Verdict.WAIT if choice.arm is None else Verdict.START)

    def learn(self, feedback: Feedback) -> float:
        """Let both learn; return the reward of the baseline."""
        self._ours.learn(feedback)
        return self._baseline.learn(feedback)

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Let both learn."""
        self._ours.learn_miss(model, row, prompt_tokens)
        self._baseline.learn_miss(model, row, prompt_tokens)

    def forget(self, model: str) -> None:
        """Let both forget."""
        self._ours.forget(model)
        self._baseline.forget(model)

    def export_state(self, model: str, row: int) -> dict[str, float]:
        """Return the state of the baseline."""
        return self._baseline.export_state(model, row)

    def import_state(self, model: str, row: int, state: Mapping[str, float]) -> None:
        """Restore the state of the baseline."""
        self._baseline.import_state(model, row, state)

    def _find_worth(self, choice: Choice) -> BoolArray:
        """Return the arms whose net value is above the floor."""
        net = sum(
            (term.sign * term.values for term in choice.terms if term.name != ENERGY), np.zeros_like(choice.scores)
        )
        worth: BoolArray = np.isfinite(choice.scores) & (net > self._floor)
        return worth
