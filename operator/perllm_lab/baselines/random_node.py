"""Random: every open node with equal probability, whether it has room or not. Textbook rule, nothing simplified."""

import numpy as np
from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_open


class RandomNode(Baseline):
    """Draws a node uniformly."""

    name = "random"

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Draw one of the open nodes."""
        eligible = find_open(arms)
        scores = np.zeros(len(arms.rows))
        positions = np.flatnonzero(eligible)
        if not len(positions):
            return build_choice(task, arms, None, scores=scores, eligible=eligible, reason="no open node")
        arm = int(positions[int(self._rng.integers(len(positions)))])
        reason = f"drawn among {len(positions)} nodes"
        return build_choice(task, arms, arm, scores=scores, eligible=eligible, reason=reason)
