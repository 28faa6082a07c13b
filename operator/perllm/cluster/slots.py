"""The slots of a node: units of its GPU resources, or a number in a label where no device plugin reports any."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from perllm.api import names
from perllm.api.quantities import parse_quantity

MAX_LABELLED = 1000
"""Slots that a label may state."""


def find_resource(asked: Iterable[str], patterns: Sequence[str]) -> str:
    """Return the first of these resources that slots are units of, in the order of the patterns; empty if none is."""
    known = sorted(asked)
    return next((name for pattern in patterns for name in known if fnmatchcase(name, pattern)), "")


def read_resources(allocatable: Mapping[str, str], patterns: Sequence[str]) -> dict[str, float]:
    """Return the resources that slots are units of, with their quantities, without those of which there are none."""
    found = {name: parse_quantity(amount) for name, amount in allocatable.items() if find_resource([name], patterns)}
    return {name: float(amount) for name, amount in found.items() if amount > 0}


def read_label(text: str | None) -> int:
    """Return the number of slots in a label; 0 if it is none."""
    is_number = text is not None and text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_LABELLED))
    return min(int(text), MAX_LABELLED) if text is not None and is_number else 0


def is_device(resource: str) -> bool:
    """Whether each unit of a resource is a GPU of its own, or a slice of one."""
    return bool(find_resource([resource], names.DEVICE_RESOURCES))
