"""The tasks that wait for a node: which of them to look at, and in which order.

Every task is looked at when it is new. Then it waits in a line: for the node that it would best run on, or for any. A
line is called when its node has room again, until one of it stays. The most urgent of all that are new or called comes
first. So a round costs as much as has changed, however many wait. What nothing calls, since it waits for time rather
than for room, is looked at now and then, a few at a time, in turn.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

PAUSE_S = 0.25
"""Between two looks at tasks that nothing has called."""

MAX_LOOKED_AT = 4
"""Waiting tasks that are looked at then."""

K = TypeVar("K", bound=Hashable)
Rank = tuple[float, ...]
"""Smaller comes first."""

Line = Hashable
"""What a line waits for: the row of a node, or anything else for whatever node."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry(Generic[K]):
    rank: Rank
    number: int
    key: K = field(compare=False)


class WaitingLines(Generic[K]):
    """Waiting tasks by what they wait for. What is done about one is logarithmic in their number."""

    def __init__(self) -> None:
        self._ranks: dict[K, Rank] = {}
        self._new: list[_Entry[K]] = []
        self._is_new: set[K] = set()
        self._line_of: dict[K, Line] = {}
        self._lines: dict[Line, list[_Entry[K]]] = {}
        self._called: dict[Line, None] = {}
        self._patrol_s = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, key: object) -> bool:
        return key in self._ranks

    def add(self, key: K, rank: Rank) -> None:
        """Let a task be looked at; one that waits already is moved. Equal ranks keep the order of arrival."""
        self._ranks[key] = rank
        self._line_of.pop(key, None)
        self._is_new.add(key)
        self._push(self._new, key)

    def again(self, key: K) -> None:
        """Let a task that waits be looked at again."""
        if key in self._line_of:
            self.add(key, self._ranks[key])

    def all_again(self) -> None:
        """Let every task be looked at again: much has changed."""
        for key in list(self._line_of):
            self.again(key)

    def wait(self, key: K, line: Line) -> None:
        """Put a task that was looked at into a line."""
        if key not in self._ranks or self._line_of.get(key) == line:
            return
        self._line_of[key] = line
        self._push(self._lines.setdefault(line, []), key)

    def remove(self, key: K) -> None:
        """Take a task out; unknown ones are ignored."""
        self._ranks.pop(key, None)
        self._line_of.pop(key, None)
        self._is_new.discard(key)

    def call(self, row: int) -> None:
        """Note that a node has room again: those who wait for it are called, and those who wait for any node."""
        self._called[row] = None
        self._called.update(dict.fromkeys(line for line in self._lines if not isinstance(line, int)))

    def next_s(self, now_s: float) -> float:
        """Return when `due` wants to be asked although nothing happens; inf for never."""
        if self._is_new or self._called:
            return now_s
        return max(self._patrol_s, now_s) if self._ranks else inf

    def due(self, now_s: float) -> Iterator[K]:
        """Yield the tasks to look at now; the caller has each `wait` or removes it before it takes the next.

        The caller may stop at any moment: what was not yielded comes the next time.
        """
        in_turn = self._take_turn(now_s)
        while (found := self._most_urgent()) is not None:
            line, key = found
            if line is None:
                self._is_new.discard(key)
            yield key
            if line is not None and self._line_of.get(key) == line:
                self._called.pop(line, None)
        for key in in_turn:
            if key in self._line_of:
                yield key

    def _take_turn(self, now_s: float) -> list[K]:
        """Return those that are looked at since time has passed, and move them to the end of the round."""
        if now_s < self._patrol_s:
            return []
        self._patrol_s = now_s + PAUSE_S
        in_turn = [*self._line_of][:MAX_LOOKED_AT]
        for key in in_turn:
            self._line_of[key] = self._line_of.pop(key)
        return in_turn

    def _most_urgent(self) -> tuple[Line | None, K] | None:
        """Return the first of the new tasks and of the heads of the lines called, and its line."""
        best: tuple[_Entry[K], Line | None] | None = None
        while self._new and not (self._new[0].key in self._is_new and self._is_current(self._new[0])):
            heappop(self._new)
        if self._new:
            best = self._new[0], None
        for line in list(self._called):
            head = self._head(line)
            if head is None:
                self._called.pop(line)
            elif best is None or head < best[0]:
                best = head, line
        return None if best is None else (best[1], best[0].key)

    def _head(self, line: Line) -> "_Entry[K] | None":
        heap = self._lines.get(line, [])
        while heap and not (self._line_of.get(heap[0].key) == line and self._is_current(heap[0])):
            heappop(heap)
        if heap:
            return heap[0]
        self._lines.pop(line, None)
        return None

    def _is_current(self, entry: "_Entry[K]") -> bool:
        return self._ranks.get(entry.key) == entry.rank

    def _push(self, heap: "list[_Entry[K]]", key: K) -> None:
        self._number += 1
        heappush(heap, _Entry(self._ranks[key], self._number, key))
