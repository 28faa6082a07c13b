"""Greedy energy: the least predicted energy among the nodes predicted to be in time, on PerLLM's own predictions.

Textbook rule. It chooses among the nodes with room; when none of them is predicted to be in time it takes the fastest,
when there is none the task waits in the central queue. It does not see what a placement does to the tasks already
running.
"""

from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_best, find_roomy


class GreedyEnergy(Baseline):
    """The node of the least predicted energy in time."""

    name = "greedy-energy"

    def __init__(self, rng: Generator) -> None: ...

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose by energy among the nodes with room that are predicted to be in time, else by latency."""
        roomy = find_roomy(arms)
        in_time = roomy & (arms.latency_s <= task.time_left_s)
        if in_time.any():
            arm = find_best(-arms.energy_j, in_time, arms, arms.latency_s)
            reason = "least predicted energy in time"
            return build_choice(task, arms, arm, scores=-arms.energy_j, eligible=in_time, reason=reason)
        arm = find_best(-arms.latency_s, roomy, arms, arms.energy_j)
        reason = "no node has room" if arm is None else "none in time, least predicted latency"
        return build_choice(task, arms, arm, scores=-arms.latency_s, eligible=roomy, reason=reason)
