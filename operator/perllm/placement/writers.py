"""Which tasks write on each node, and which prompts are read meanwhile: what the laws learn that a task has met.

A task writes from when its first token is expected until it leaves its node. Before that it waits for its pod, its
input and its prompt: counted over that time too, a batch of tasks that start slowly would be mistaken for those that
ran while they did not, and the laws would learn that it hardly matters how many share an iteration.

A prompt holds up those that write once its own reading is expected to begin, perhaps long after its task was placed.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush

from perllm.placement.flight import Flight


@dataclass(slots=True)
class _Opening:
    """When the prompt of a task that does not write yet is read, and when the task writes."""

    reads_s: float
    writes_s: float
    prompt_tokens: float
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class _Start:
    """The sums of a node when a task began to write."""

    at_s: float
    area: float
    read_tokens: float


@dataclass(slots=True)
class _NodeBatch:
    """The tasks that write on one node and their number integrated over time until `at_s`; the prompts read so far.

    Entries of `readings` and `openings` whose time is not that of their task any more are skipped.
    """

    count: float = 0.0
    area: float = 0.0
    at_s: float = 0.0
    read_tokens: float = 0.0
    readings: list[tuple[float, str]] = field(default_factory=list)
    openings: list[tuple[float, str]] = field(default_factory=list)

    def elapse(self, until_s: float) -> None:
        self.area += self.count * max(until_s - self.at_s, 0.0)
        self.at_s = max(until_s, self.at_s)


class Writers:
    """The tasks that write, by row; constant cost per task, but for the logarithm of those that are yet to."""

    def __init__(self) -> None:
        self._batches: dict[int, _NodeBatch] = defaultdict(_NodeBatch)
        self._openings: dict[str, _Opening] = {}
        self._starts: dict[str, _Start] = {}

    def put(self, flight: Flight, now_s: float) -> None:
        """Add a task; the prompt of one that writes already was read before it was known here."""
        task_id, batch = flight.task_id, self._batches[flight.row]
        opening = _Opening(
            reads_s=max(flight.writes_from_s - flight.forecast.times.reading_s, now_s),
            writes_s=max(flight.writes_from_s, now_s),
            prompt_tokens=flight.inference.prompt_tokens if flight.writes_from_s > now_s else 0.0,
        )
        self._openings[task_id] = opening
        heappush(batch.readings, (opening.reads_s, task_id))
        heappush(batch.openings, (opening.writes_s, task_id))

    def remove(self, task_id: str, row: int, now_s: float) -> None:
        """Remove a task."""
        batch = self._advance(row, now_s)
        opening = self._openings.pop(task_id, None)
        if opening is not None and opening.is_read:
            batch.read_tokens -= opening.prompt_tokens
        if self._starts.pop(task_id, None) is not None:
            batch.count -= 1.0

    def add_foreign(self, row: int, change: float, now_s: float) -> None:
        """Note that more foreign requests, or fewer, are being written."""
        self._advance(row, now_s).count += change

    def find_others(self, task_id: str, row: int, now_s: float) -> float:
        """Return how many others wrote while a task did, in the mean; of one that has not begun, how many write now."""
        batch = self._advance(row, now_s)
        start = self._starts.get(task_id)
        if start is None:
            return batch.count
        if now_s <= start.at_s:
            return batch.count - 1.0
        return (batch.area - start.area) / (now_s - start.at_s) - 1.0

    def find_read_tokens(self, task_id: str, row: int, now_s: float) -> float:
        """Return how many prompt tokens of others were read since a task began to write; 0 if it has not begun."""
        batch = self._advance(row, now_s)
        start = self._starts.get(task_id)
        return 0.0 if start is None else max(batch.read_tokens - start.read_tokens, 0.0)

    def _advance(self, row: int, now_s: float) -> _NodeBatch:
        batch = self._batches[row]
        while batch.openings and batch.openings[0][0] <= now_s:
            writes_s, task_id = heappop(batch.openings)
            opening = self._openings.get(task_id)
            if opening is None or opening.writes_s != writes_s:
                continue
            self._read(batch, writes_s)
            batch.elapse(writes_s)
            del self._openings[task_id]
            self._starts[task_id] = _Start(writes_s, batch.area, batch.read_tokens)
            batch.count += 1.0
        self._read(batch, now_s)
        batch.elapse(now_s)
        return batch

    def _read(self, batch: _NodeBatch, until_s: float) -> None:
        """Count the prompts whose reading has begun by then."""
        while batch.readings and batch.readings[0][0] <= until_s:
            reads_s, task_id = heappop(batch.readings)
            opening = self._openings.get(task_id)
            if opening is not None and opening.reads_s == reads_s and not opening.is_read:
                opening.is_read = True
                batch.read_tokens += opening.prompt_tokens
