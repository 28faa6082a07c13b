"""Tasks by rank, for callers that only need the first."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Rank = tuple[float, ...]
"""Smaller comes first."""

MIN_KEPT = 64


@dataclass(frozen=True, slots=True, order=True)
class RankedTask(Generic[K]):
    """A task with its rank.

    Attributes:
        rank: its place in the order of its namespace.
        number: among equal ranks, the smaller number comes first.
        key: the task.
        priority: from -1 to 1.
    """

    rank: Rank
    number: int
    key: K = field(compare=False)
    priority: float = field(compare=False, default=0.0)


class Ranking(Generic[K]):
    """A heap of entries, each held once. Entries that no longer belong here need not be removed.

    Args:
        is_current: whether an entry still belongs here.
    """

    def __init__(self, is_current: Callable[[RankedTask[K]], bool]) -> None:
        self._is_current = is_current
        self._entries: list[RankedTask[K]] = []
        self._held: dict[K, RankedTask[K]] = {}
        self._kept = MIN_KEPT

    def put(self, entry: RankedTask[K]) -> None:
        """Add an entry; takes logarithmic time."""
        if self._held.get(entry.key) is entry:
            return
        self._held[entry.key] = entry
        heappush(self._entries, entry)
        if len(self._entries) > self._kept:
            self._drop_left()

    def put_all(self, entries: Iterable[RankedTask[K]]) -> None:
        """Add many entries; takes linear time."""
        added = [entry for entry in entries if self._held.get(entry.key) is not entry]
        self._held.update((entry.key, entry) for entry in added)
        self._entries += added
        self._drop_left()

    def first(self) -> RankedTask[K] | None:
        """Return the first entry that still belongs here."""
        while self._entries and not self._is_current(self._entries[0]):
            left = heappop(self._entries)
            if self._held.get(left.key) is left:
                del self._held[left.key]
        return self._entries[0] if self._entries else None

    def _drop_left(self) -> None:
        """Drop entries that no longer belong here and may never reach the front; rare, so cheap per entry."""
        self._entries = [entry for entry in self._entries if self._is_current(entry)]
        self._held = {entry.key: entry for entry in self._entries}
        heapify(self._entries)
        self._kept = max(MIN_KEPT, 2 * len(self._entries))
