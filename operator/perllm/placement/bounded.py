"""Memory whose keys come from tasks, so that it has to be bounded."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

MAX_REMEMBERED = 4096

T = TypeVar("T")


def remember(memory: OrderedDict[str, T], key: str, make: Callable[[], T]) -> T:
    """Return the value of a key, built if missing, as the most recently used; the least recently used is evicted."""
    known = memory.pop(key, None)
    memory[key] = known = make() if known is None else known
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
    return known
