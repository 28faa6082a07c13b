"""The waiting tasks of one namespace, in their own order."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Generic

from perllm.scheduling.ranking import K, RankedTask, Ranking

Line = Hashable
"""What a line waits for: a node, given by its row, or any node, given by anything else."""

NO_NODE: Line = "no node"
"""The line of tasks that no node can take as nodes and tasks are. Room does not help them, so none calls it: else every
slot that becomes free would cost as much as there are such tasks."""


@dataclass(frozen=True, slots=True, order=True)
class _Head(Generic[K]):
    """The head of a called line."""

    entry: RankedTask[K]
    number: int
    line: Line = field(compare=False)


class Backlog(Generic[K]):
    """Tasks that are new, and tasks in lines. Operations on one task take logarithmic time."""

    def __init__(self) -> None:
        self._tasks: dict[K, RankedTask[K]] = {}
        self._is_new: set[K] = set()
        self._new: Ranking[K] = Ranking(lambda entry: entry.key in self._is_new and self._tasks[entry.key] is entry)
        self._line_of: dict[K, Line] = {}
        self._lines: dict[Line, Ranking[K]] = {}
        self._called: dict[Line, None] = {}
        self._heads: list[_Head[K]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, entry: RankedTask[K]) -> None:
        """Queue a task to be examined; one that is already here is moved."""
        self._tasks[entry.key] = entry
        self._line_of.pop(entry.key, None)
        self._is_new.add(entry.key)
        self._new.put(entry)

    def requeue(self, key: K) -> None:
        """Move a task from its line back to the new tasks."""
        if key in self._line_of:
            self.add(self._tasks[key])

    def requeue_current(self, key: K) -> None:
        """Move the task that is being examined to the new tasks, whether or not it was in a line."""
        self.add(self._tasks[key])

    def requeue_all(self) -> None:
        """Move all tasks from their lines back to the new tasks; takes linear time."""
        self._is_new.update(self._line_of)
        self._new.put_all([self._tasks[key] for key in self._line_of])
        for emptied in (self._line_of, self._lines, self._called, self._heads):
            emptied.clear()

    def wait(self, key: K, line: Line) -> None:
        """Put a task that was examined into a line."""
        self._line_of[key] = line
        if line not in self._lines:
            self._lines[line] = Ranking(lambda entry: self._stands_in(line, entry))
        self._lines[line].put(self._tasks[key])
        if line in self._called:
            self._put_head(line)

    def remove(self, key: K) -> None:
        """Remove a task."""
        self._tasks.pop(key, None)
        self._line_of.pop(key, None)
        self._is_new.discard(key)

    def call(self, line: Line) -> bool:
        """Mark a line to be examined; return whether it holds any task."""
        if self.head(line) is None:
            return False
        if line not in self._called:
            self._called[line] = None
            self._put_head(line)
        return True

    def examine_first(self) -> Iterator[K]:
        """Yield the most urgent task; if it remains in its line, those behind it could not start either, and wait."""
        found = self._first()
        if found is None:
            return
        line, entry = found
        if line is None:
            self._is_new.discard(entry.key)
        yield entry.key
        if line is not None and self._line_of.get(entry.key) == line:
            self._called.pop(line, None)

    def first(self) -> RankedTask[K] | None:
        """Return the most urgent of the new tasks and of those in called lines."""
        found = self._first()
        return None if found is None else found[1]

    def entry(self, key: K) -> RankedTask[K]:
        """Return a task with its rank."""
        return self._tasks[key]

    def line_of(self, key: K) -> Line:
        """Return the line that a task is in; None if it is new."""
        return self._line_of.get(key)

    def is_in_line(self, key: K) -> bool:
        """Whether a task was examined and waits."""
        return key in self._line_of

    def rotate(self, count: int) -> list[K]:
        """Return the tasks in lines that were examined the longest ago, and move them to the end of the rotation."""
        keys = list(islice(self._line_of, count))
        for key in keys:
            self._line_of[key] = self._line_of.pop(key)
        return keys

    def _first(self) -> tuple[Line | None, RankedTask[K]] | None:
        newest, called = self._new.first(), self._first_called()
        if called is not None and (newest is None or called.entry < newest):
            return called.line, called.entry
        return None if newest is None else (None, newest)

    def _first_called(self) -> "_Head[K] | None":
        """Return the most urgent head of a called line."""
        while self._heads:
            first = self._heads[0]
            if first.line in self._called and self.head(first.line) is first.entry:
                return first
            heappop(self._heads)
            if first.line in self._called:
                self._put_head(first.line)
        return None

    def _put_head(self, line: Line) -> None:
        """Queue the head of a called line; an outdated head is dropped when it comes first."""
        head = self.head(line)
        if head is None:
            del self._called[line]
            return
        self._number += 1
        heappush(self._heads, _Head(head, self._number, line))

    def head(self, line: Line) -> RankedTask[K] | None:
        """Return the most urgent task in a line."""
        heap = self._lines.get(line)
        head = heap.first() if heap is not None else None
        if head is None:
            self._lines.pop(line, None)
        return head

    def _stands_in(self, line: Line, entry: RankedTask[K]) -> bool:
        return self._line_of.get(entry.key) == line and self._tasks[entry.key] is entry
