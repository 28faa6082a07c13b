"""Which task is next: higher priority first, then least laxity.

Laxity is the time a task can still wait: deadline - now - time it will take. Between two waiting tasks only
deadline - time it will take matters, so the order never changes while they wait.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A waiting task and its urgency."""

    negative_priority: int
    latest_start_s: float
    number: int
    key: str


class TaskQueue:
    """Waiting tasks by urgency. Every operation is logarithmic; removed entries are skipped when met."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._current: dict[str, Entry] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, key: object) -> bool:
        return key in self._current

    def put(self, key: str, priority: int, latest_start_s: float) -> None:
        """Add a task, or move it; ties keep the order of arrival."""
        self._number += 1
        entry = Entry(-priority, latest_start_s, self._number, key)
        self._current[key] = entry
        heapq.heappush(self._heap, entry)

    def remove(self, key: str) -> None:
        """Take a task out; unknown ones are ignored."""
        self._current.pop(key, None)

    def put_back(self, entry: Entry) -> None:
        """Return a task that was taken out, with the urgency it had; one that was put again since stays as it is."""
        if entry.key not in self._current:
            self._current[entry.key] = entry
            heapq.heappush(self._heap, entry)

    def drain(self, limit: int) -> Iterator[Entry]:
        """Take out and yield up to `limit` tasks, most urgent first; the caller puts back what cannot start."""
        while limit > 0 and self._heap:
            entry = heapq.heappop(self._heap)
            if self._current.get(entry.key) is not entry:
                continue
            del self._current[entry.key]
            limit -= 1
            yield entry
