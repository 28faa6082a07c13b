"""The messages between kube-scheduler and its extender (k8s.io/kube-scheduler/extender/v1); pure functions.

Field names are capitalised on the wire. A pod that exists is placed as soon as a node has room, even if its task had
better waited. Filter returns that node alone, so kube-scheduler need not ask for scores; no other node would get the
pod in any case, since kube-scheduler begins again if the chosen one fails. Prioritize gives the chosen node ten points
and the others fewer, by rank, for a kube-scheduler that asks nevertheless.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perllm.placement.placer import Placement

MAX_SCORE = 10

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """A pod that no node may take, even with room, until it is changed.

    Attributes:
        reason: why.
        is_watched: whether the operator sees when it is changed.
    """

    reason: str
    is_watched: bool = True


def filter_answer(placement: Placement, asked: Sequence[str]) -> Answer:
    """Return the chosen node; if there is none, why the nodes that were asked about fail."""
    passed = [] if placement.node is None else [placement.node]
    failed = {} if passed else _exclude(asked, placement.obstacle or _describe_lack(placement))
    return {"NodeNames": passed, "FailedNodes": failed, "FailedAndUnresolvableNodes": {}, "Error": ""}


def unplaceable_answer(reason: str, asked: Sequence[str]) -> Answer:
    """Return a filter answer by which no node can take a pod, not even if others were preempted."""
    return {
        "NodeNames": [],
        "FailedNodes": {},
        "FailedAndUnresolvableNodes": _exclude(asked, reason),
        "Error": "",
    }


def filter_error(message: str) -> Answer:
    """Return a filter answer that fails the pod's attempt; kube-scheduler tries again later."""
    return {"NodeNames": [], "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": message}


def priorities(placement: Placement, asked: Sequence[str]) -> list[Answer]:
    """Return the score of every node that was asked about: ten for the chosen node, nine and fewer by rank."""
    scores = dict(zip(placement.names, placement.open_scores.tolist(), strict=True))
    ranked = sorted((name for name in asked if name in scores and name != placement.node), key=lambda n: -scores[n])
    points = {name: max(MAX_SCORE - 1 - rank, 0) for rank, name in enumerate(ranked)}
    if placement.node is not None:
        points[placement.node] = MAX_SCORE
    return [{"Host": name, "Score": points.get(name, 0)} for name in asked]


def binding_answer(error: str = "") -> Answer:
    """Return the answer to a bind call."""
    return {"Error": error}


def _exclude(asked: Sequence[str], why: str) -> dict[str, str]:
    return dict.fromkeys(asked, f"excluded by PerLLM: {why}")


def _describe_lack(placement: Placement) -> str:
    arms = placement.arms
    has_room = arms.allowed & (arms.compute_used <= arms.compute_capacity)
    return "a constraint does not hold" if has_room.any() else "no slot is free on a node that may take it"
