"""Least loaded: the open node with the fewest tasks relative to its slots, tasks waiting there included.

Textbook rule (join the shortest queue, weighted by capacity); equal loads go to the least predicted latency.
"""

from numpy.random import Generator

from perllm.policy.problem import Arms, BoolArray, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_open, least_loaded, measure_load


class LeastLoaded(Baseline):
    """The least loaded node of the fleet."""

    name = "least-loaded"

    def __init__(self, rng: Generator) -> None: ...

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the eligible node of the smallest load."""
        eligible = self._find_eligible(arms)
        arm = least_loaded(arms, eligible)
        reason = "no open node of the tier" if arm is None else "least tasks per slot"
        return build_choice(task, arms, arm, scores=-measure_load(arms), eligible=eligible, reason=reason)

    def _find_eligible(self, arms: Arms) -> BoolArray:
        return find_open(arms)
