"""How many tasks write on each node, so that laws learn what a batch was while a task was part of it.

A task writes from when its first token is expected until it leaves its node. Before that it waits for its pod, its
input and its prompt: counted over that time too, a batch of tasks that start slowly would be mistaken for those that
ran while they did not, and the laws would learn that it hardly matters how many share an iteration.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(slots=True)
class _NodeBatch:
    """The tasks that write on one node, and their number integrated over time until `at_s`."""

    count: float = 0.0
    area: float = 0.0
    at_s: float = 0.0
    openings: list[tuple[float, str]] = field(default_factory=list)

    def elapse(self, until_s: float) -> None:
        self.area += self.count * max(until_s - self.at_s, 0.0)
        self.at_s = max(until_s, self.at_s)


class Writers:
    """The tasks that write, by row; constant cost per task, but for the logarithm of those that open."""

    def __init__(self) -> None:
        self._batches: dict[int, _NodeBatch] = defaultdict(_NodeBatch)
        self._opens_s: dict[str, float] = {}
        self._begun: dict[str, tuple[float, float]] = {}

    def put(self, task_id: str, row: int, writes_from_s: float, now_s: float) -> None:
        """Add a task that writes from then on."""
        opens_s = max(writes_from_s, now_s)
        self._opens_s[task_id] = opens_s
        heappush(self._batches[row].openings, (opens_s, task_id))

    def remove(self, task_id: str, row: int, now_s: float) -> None:
        """Remove a task."""
        batch = self._advance(row, now_s)
        self._opens_s.pop(task_id, None)
        if self._begun.pop(task_id, None) is not None:
            batch.count -= 1.0

    def add_foreign(self, row: int, change: float, now_s: float) -> None:
        """Note that more foreign requests, or fewer, are being written."""
        self._advance(row, now_s).count += change

    def find_others(self, task_id: str, row: int, now_s: float) -> float:
        """Return how many others wrote while a task did, in the mean; of one that has not begun, how many write now."""
        batch = self._advance(row, now_s)
        if task_id not in self._begun:
            return batch.count
        begun_s, area = self._begun[task_id]
        if now_s <= begun_s:
            return batch.count - 1.0
        return (batch.area - area) / (now_s - begun_s) - 1.0

    def _advance(self, row: int, now_s: float) -> _NodeBatch:
        batch = self._batches[row]
        while batch.openings and batch.openings[0][0] <= now_s:
            opens_s, task_id = heappop(batch.openings)
            if self._opens_s.get(task_id) != opens_s:
                continue
            del self._opens_s[task_id]
            batch.elapse(opens_s)
            self._begun[task_id] = (opens_s, batch.area)
            batch.count += 1.0
        batch.elapse(now_s)
        return batch
