"""Fastest first: the node of the least predicted latency, on the same predictions that PerLLM sees.

Textbook rule. It chooses among the nodes with room; when there is none the task waits in the central queue. It does not
see energy, nor what a placement does to the tasks already running.
"""

from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_best, find_roomy


class FastestFirst(Baseline):
    """The node of the least predicted latency."""

    name = "fastest-first"

    def __init__(self, rng: Generator) -> None: ...

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the node with room of the least predicted latency, equal ones by energy."""
        eligible = find_roomy(arms)
        arm = find_best(-arms.latency_s, eligible, arms, arms.energy_j)
        reason = "no node has room" if arm is None else "least predicted latency"
        return build_choice(task, arms, arm, scores=-arms.latency_s, eligible=eligible, reason=reason)
