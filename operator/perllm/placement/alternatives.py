"""The nodes that a task could have gone to instead, for people who ask why it did not.

Of many equal nodes one is enough, so each is the best one of its GPU type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from perllm.api.task_status import AlternativeStatus
from perllm.placement.reasons import LEAST
from perllm.policy.problem import Arms, Choice, IntArray
from perllm.text import clean_line

MAX_ALTERNATIVES = 3

MAX_NAME = 253

MAX_EXAMINED = 200
"""Best nodes among which alternatives are sought, so that a large fleet costs no more than a small one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What was expected of a task on a node that it did not go to.

    Attributes:
        node: the node.
        gpu_type: its GPU type.
        latency_s: from the decision to completion, the wait for room included.
        energy_j: transmission and inference.
        hit_chance: chance to be in time.
        has_room: whether the task could have started there at once.
        score: the policy's score; None where it is infinite.
        lost_by: the part of the score by which it lost most to the chosen node; empty if it lost by none.
    """

    node: str
    gpu_type: str
    latency_s: float
    energy_j: float
    hit_chance: float
    has_room: bool
    score: float | None = None
    lost_by: str = ""

    def cleaned(self) -> Self:
        """Return it with words that fit into a status."""
        node, gpu_type, lost_by = (clean_line(text, MAX_NAME) for text in (self.node, self.gpu_type, self.lost_by))
        return replace(self, node=node, gpu_type=gpu_type, lost_by=lost_by)

    def to_status(self, before_s: float) -> AlternativeStatus:
        """Return what the status of the task shows, which was created `before_s` before the decision."""
        return AlternativeStatus(
            node=self.node,
            gpu_type=self.gpu_type,
            predicted_latency=before_s + self.latency_s,
            predicted_energy=self.energy_j,
            hit_chance=min(max(self.hit_chance, 0.0), 1.0),
            has_room=self.has_room,
            score=self.score,
            lost_by=self.lost_by or None,
        )


def list_alternatives(
    names: Sequence[str], arms: Arms, choice: Choice, arm: int, *, types: IntArray, gpu_type_of: Callable[[str], str]
) -> tuple[Alternative, ...]:
    """Return the best other nodes, at most one of a GPU type, the best first.

    Args:
        names: the node of every arm.
        arms: what is known of them.
        choice: of the policy; arms without a score are not alternatives.
        arm: where the task goes.
        types: number of the GPU type of every arm.
        gpu_type_of: returns the GPU type of a node.
    """
    best: dict[int, int] = {}
    others = _rank_others(choice, arm)
    for other, kind in zip(others.tolist(), types[others].tolist(), strict=True):
        best.setdefault(kind, other)
        if len(best) == MAX_ALTERNATIVES:
            break
    return tuple(
        Alternative(
            node=names[other],
            gpu_type=gpu_type_of(names[other]),
            latency_s=float(arms.latency_s[other]),
            energy_j=float(arms.energy_j[other]),
            hit_chance=float(arms.hit_chance[other]),
            has_room=bool(arms.compute_used[other] <= arms.compute_capacity[other]),
            score=float(choice.scores[other]) if np.isfinite(choice.scores[other]) else None,
            lost_by=_find_loss(choice, other, arm),
        )
        for other in best.values()
    )


def _rank_others(choice: Choice, arm: int) -> IntArray:
    """Return the other arms with a score, the highest first, `MAX_EXAMINED` at most."""
    scores, examined = choice.scores, MAX_EXAMINED + 1
    least = np.partition(scores, -examined)[-examined] if len(scores) > examined else -np.inf
    best = np.flatnonzero(scores >= least)
    order = best[np.argsort(-scores[best], kind="stable")]
    scored: IntArray = order[(scores[order] > -np.inf) & (order != arm)]
    return scored[:MAX_EXAMINED]


def _find_loss(choice: Choice, other: int, arm: int) -> str:
    losses = {term.name: term.sign * (float(term.values[other]) - float(term.values[arm])) for term in choice.terms}
    worst = min(losses, key=lambda name: losses[name], default="")
    return worst if worst and losses[worst] <= -LEAST else ""
