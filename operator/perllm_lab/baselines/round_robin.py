"""Round robin: the open nodes in turn, by row, whether they have room or not. Textbook rule, nothing simplified."""

import numpy as np
from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_open


class RoundRobin(Baseline):
    """Takes the nodes in turn."""

    name = "round-robin"

    def __init__(self, rng: Generator) -> None:
        self._last_row = -1

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the open node of the next higher row, or of the lowest after the last."""
        eligible = find_open(arms)
        scores = np.zeros(len(arms.rows))
        positions = np.flatnonzero(eligible)
        if not len(positions):
            return build_choice(task, arms, None, scores=scores, eligible=eligible, reason="no open node")
        rows = arms.rows[positions]
        passed = rows <= self._last_row
        arm = int(positions[np.lexsort((rows, passed))[0]])
        self._last_row = int(arms.rows[arm])
        return build_choice(task, arms, arm, scores=scores, eligible=eligible, reason="next in turn")
