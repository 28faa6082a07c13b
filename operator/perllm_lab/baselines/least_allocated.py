"""kube-scheduler's default preference, NodeResourcesLeastAllocated, re-implemented from the Kubernetes documentation.

Rule: filter the nodes that have room; score of a resource = (capacity - requested) * 100 / capacity in whole numbers,
`requested` with the pod; score of a node = mean over cpu and memory; highest wins, ties are broken at random. When no
node has room, the pod waits in the scheduler's queue.
Simplified: every pod asks for the same share of cpu and memory, one slot's worth, so slots stand for both resources and
their mean is the score of one; the other plugins of the default profile (balanced allocation, image locality, topology
spread, taints) score such pods alike and are left out; all nodes are scored, not a sample of a large cluster's.
"""

import numpy as np
from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_roomy

MAX_NODE_SCORE = 100


class LeastAllocated(Baseline):
    """Plain kube-scheduler."""

    name = "least-allocated"

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose among the nodes with room the one of the highest whole-number score; ties are broken at random."""
        eligible = find_roomy(arms)
        capacity = np.maximum(arms.compute_capacity, 1.0)
        scores = np.floor(np.maximum(capacity - arms.compute_used, 0.0) * MAX_NODE_SCORE / capacity)
        if not eligible.any():
            return build_choice(task, arms, None, scores=scores, eligible=eligible, reason="no node has room")
        best = np.flatnonzero(eligible & (scores == scores[eligible].max()))
        arm = int(best[int(self._rng.integers(len(best)))])
        reason = f"least allocated, score {scores[arm]:.0f}, {len(best)} equal"
        return build_choice(task, arms, arm, scores=scores, eligible=eligible, reason=reason)
