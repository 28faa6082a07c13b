"""Where the plain kube-scheduler would put a pod: the rule that a cluster without PerLLM goes by.

Of the nodes that fit and have room, the one of the highest score of its plugin NodeResourcesFit with the strategy
LeastAllocated, the default (Kubernetes documentation, "Resource Bin Packing"):

    score of a resource   (allocatable - requested) * 100 / allocatable, rounded down; the pod itself is requested
    score of a node       mean of cpu and memory, rounded down; ties are broken at random

A pod without room waits in one queue for all nodes, so it goes to the node that is expected to have room first.

Each task in flight is taken to request what this one does, and other pods to request the same of every node. The other
plugins of the default profile score such pods alike on all nodes, or nearly so.
"""

from random import Random

import numpy as np

from perllm.placement.fleet import Fleet
from perllm.placement.placer import Placement
from perllm.policy.problem import FloatArray

MAX_NODE_SCORE = 100


class KubeScheduler:
    """Chooses as kube-scheduler does by default.

    Args:
        fleet: the nodes.
        rng: breaks ties.
    """

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        self._fleet = fleet
        self._rng = rng

    def choose(self, placement: Placement) -> int | None:
        """Return the arm for the pod of a task; None if it fits on none."""
        demand, outlook, arms = placement.request.demand, placement.outlook, placement.arms
        fits = arms.allowed & (arms.compute_capacity > 0)
        has_room = fits & (arms.compute_used <= arms.compute_capacity)
        if not has_room.any():
            return int(np.argmin(np.where(fits, outlook.queue_s, np.inf))) if fits.any() else None
        pods = arms.compute_used / max(demand.slots, 1.0)
        cpu = _score(self._fleet.cpu_cores(arms.rows), pods * demand.cpu_cores)
        memory = _score(self._fleet.memory_bytes(arms.rows), pods * demand.memory_bytes)
        scores = np.where(has_room, np.floor((cpu + memory) / 2), -1.0)
        return int(self._rng.choice(np.flatnonzero(scores == scores.max())))


def _score(allocatable: FloatArray, requested: FloatArray) -> FloatArray:
    """Return the score of one resource on each node; 0 where more is requested than there is."""
    share = (allocatable - requested) * MAX_NODE_SCORE / np.maximum(allocatable, 1e-9)
    score: FloatArray = np.floor(np.maximum(share, 0.0))
    return score
