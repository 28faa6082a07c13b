"""Which policy has which colour, and which comes first. The colours themselves are in page.css."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = 8
QUIET = "var(--quiet)"
INK = "var(--ink)"


@dataclass(frozen=True, slots=True)
class Look:
    """How a policy is drawn: its family shares a colour, dashed in extended mode; families beyond eight are grey."""

    colour: str
    dashed: bool
    quiet: bool


def choose_looks(policies: Sequence[str], reference: str | None) -> dict[str, Look]:
    """Return the look of each policy; the first families in the list get the colours, the reference is black."""
    families: dict[str, str] = {}
    if reference is not None:
        families[_family(reference)] = INK
    for policy in policies:
        taken = sum(colour not in (INK, QUIET) for colour in families.values())
        families.setdefault(_family(policy), colour_of(taken) if taken < COLOURS else QUIET)
    return {
        policy: Look(families[_family(policy)], "+" in policy, families[_family(policy)] == QUIET)
        for policy in policies
    }


def rank(document: Mapping[str, Any], load: str) -> list[str]:
    """Return the policies that were run at a load, the greatest goodput first."""
    there = {policy: cells[load] for policy, cells in document["policies"].items() if load in cells}
    return sorted(there, key=lambda policy: (-(there[policy]["goodput_per_s"]["mean"] or 0.0), policy))


def colour_of(position: int) -> str:
    """Return the colour of the n-th thing; grey beyond the eighth."""
    return f"var(--c{position})" if position < COLOURS else QUIET


def _family(policy: str) -> str:
    return policy.split("+")[0]
