"""What the model servers of a node offer to served tasks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The model servers of one node, taken together.

    Attributes:
        models: the models that can be asked for now.
        unloaded: those of the models that would have to be loaded first.
        slots: requests that they process at a time; None if that is not known.
        foreign: requests there that are not PerLLM's.
        batches: models whose tasks are written in one batch, by one engine: adapters of one, or other names for it.
    """

    models: frozenset[str] = frozenset()
    unloaded: frozenset[str] = frozenset()
    slots: float | None = None
    foreign: float = 0.0
    batches: frozenset[frozenset[str]] = frozenset()


NOTHING = Serving()

UNKNOWN_SLOTS = 64.0
"""Slots of servers that do not say how many they have. vLLM batches up to 256 requests by default, if they fit."""
