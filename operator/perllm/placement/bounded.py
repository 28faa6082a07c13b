"""Memory whose keys come from tasks, so that it has to be bounded."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

MAX_REMEMBERED = 4096

T = TypeVar("T")


def remember(memory: OrderedDict[str, T], key: str, make: Callable[[], T]) -> T:
    """Return what is remembered under a key, made if it is not, as the most recent; the least recent is forgotten."""
    known = memory.pop(key, None)
    memory[key] = known = make() if known is None else known
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
    return known
