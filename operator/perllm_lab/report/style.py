"""Which policy comes first, and how it is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#2563c9", "#d0650b", "#128455", "#c8323f", "#7a48bd", "#0c8494", "#8a5b2e", "#bd3b8f")
QUIET = "#a9b2bd"
SOFT = "#5b6675"
INK = "#1d2530"


@dataclass(frozen=True, slots=True)
class Look:
    """How a policy is drawn."""

    colour: str
    is_dashed: bool = False

    @property
    def is_quiet(self) -> bool:
        """Whether it is drawn behind the others."""
        return self.colour == QUIET


def choose_looks(policies: Sequence[str], reference: str | None) -> dict[str, Look]:
    """Return the look of each policy: the deployment modes of a policy share a colour, extended ones are dashed.

    The first policies in the list get the colours, further ones are grey, the reference is black.
    """
    families: dict[str, str] = {}
    if reference is not None:
        families[_family(reference)] = INK
    for policy in policies:
        taken = sum(colour in COLOURS for colour in families.values())
        families.setdefault(_family(policy), colour_of(taken))
    return {policy: Look(families[_family(policy)], is_dashed="+" in policy) for policy in policies}


def rank(document: Mapping[str, Any], load: str) -> list[str]:
    """Return the policies that were run at a load, the greatest goodput first."""
    there = {policy: cells[load] for policy, cells in document["policies"].items() if load in cells}
    return sorted(there, key=lambda policy: (-(there[policy]["goodput_per_s"]["mean"] or 0.0), policy))


def colour_of(position: int) -> str:
    """Return the colour of the item at a position; grey when there are no more colours."""
    return COLOURS[position] if position < len(COLOURS) else QUIET


def _family(policy: str) -> str:
    return policy.split("+")[0]
