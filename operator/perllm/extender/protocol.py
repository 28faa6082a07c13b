"""What kube-scheduler and its extender say to each other (k8s.io/kube-scheduler/extender/v1); pure functions.

Field names are capitalised on the wire. A pod that exists is placed as soon as a node has room, whether or not its
task might better have waited. Filter returns that node and its successors, should it fail in the meantime; Prioritize
gives the chosen one ten points and the others fewer by rank. There are no more points than that, so more nodes would
only be carried to and fro: at a thousand nodes that is most of what an extender costs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perllm.placement.placer import Placement

MAX_SCORE = 10

Answer = dict[str, Any]


def filter_answer(placement: Placement, asked: Sequence[str]) -> Answer:
    """Return the chosen node and the next best; when there is none, why the nodes that were asked about are none."""
    passed = _shortlist(placement)
    why = placement.obstacle or "a constraint does not hold"
    failed = {} if passed else dict.fromkeys(asked, f"refused by PerLLM: {why}")
    return {"NodeNames": passed, "FailedNodes": failed, "FailedAndUnresolvableNodes": {}, "Error": ""}


def filter_error(message: str) -> Answer:
    """Return a filter answer that fails the pod's attempt; kube-scheduler tries again later."""
    return {"NodeNames": [], "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": message}


def priorities(placement: Placement, asked: Sequence[str]) -> list[Answer]:
    """Return the score of every node that was asked about: ten for the chosen one, nine and fewer by rank."""
    scores = dict(zip(placement.names, placement.open_scores.tolist(), strict=True))
    ranked = sorted((name for name in asked if name in scores and name != placement.node), key=lambda n: -scores[n])
    points = {name: max(MAX_SCORE - 1 - rank, 0) for rank, name in enumerate(ranked)}
    if placement.node is not None:
        points[placement.node] = MAX_SCORE
    return [{"Host": name, "Score": points.get(name, 0)} for name in asked]


def binding_answer(error: str = "") -> Answer:
    """Return the answer to a bind call."""
    return {"Error": error}


def _shortlist(placement: Placement) -> list[str]:
    """Return the names of the node to take and of those with room that rank next."""
    chosen = placement.arm
    if chosen is None:
        return []
    scores = placement.open_scores
    ranked = np.argsort(-scores, kind="stable")[:MAX_SCORE].tolist()
    arms = [chosen, *(arm for arm in ranked if arm != chosen and scores[arm] > -np.inf)]
    return [placement.names[arm] for arm in arms[:MAX_SCORE]]
