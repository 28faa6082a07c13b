"""Which tasks write on each node, and which prompts are read meanwhile: what the laws learn that a task has met.

A task writes from when its first token is expected until it leaves its node. Before that it waits for its pod, its
input and its prompt: counted over that time too, a batch of tasks that start slowly would be mistaken for those that
ran while they did not, and the laws would learn that it hardly matters how many share an iteration.

A prompt holds up those that write once its own reading is expected to begin, perhaps long after its task was placed.

Only tasks of one batch, which is that of their model, share iterations, and wait for each other's prompts. The batches
that have work, a prompt to read or a token to write, divide the time of their GPU equally: next to m others each has
the pace 1 / (1 + m).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from perllm.placement.flight import Flight


class Met(NamedTuple):
    """What a task has met on its node: others of its model that wrote meanwhile, their prompts, and its pace."""

    others: float
    read_tokens: float
    pace: float


@dataclass(slots=True)
class _NodeBatch:
    """The tasks of one batch on one node; sums over time are as of when the node was last advanced.

    Attributes:
        tasks: those there, in any state.
        writing: those that write, foreign requests included: of which model they are is not known.
        area: the number of those integrated over time.
        read_tokens: prompts read so far.
        working: tasks whose prompt is read, or that write.
        lost_s: seconds that others had of its GPUs while it had work.
    """

    tasks: int = 0
    writing: float = 0.0
    area: float = 0.0
    read_tokens: float = 0.0
    working: int = 0
    lost_s: float = 0.0


@dataclass(slots=True)
class _Writer:
    """When the prompt of a task is read, when it writes, and the sums of its batch as that began."""

    batch: _NodeBatch
    name: str
    reads_s: float
    writes_s: float
    prompt_tokens: float
    is_read: bool = False
    lost_s: float = 0.0
    is_writing: bool = False
    area: float = 0.0
    read_tokens: float = 0.0


@dataclass(slots=True)
class _NodeBatches:
    """The batches of one node, by name; never none, so that foreign requests are counted without tasks as well.

    Entries of `readings` and `openings` whose time is not that of their task any more are skipped.
    """

    batches: dict[str, _NodeBatch] = field(default_factory=lambda: {"": _NodeBatch()})
    gpus: float = 1.0
    foreign: float = 0.0
    at_s: float = 0.0
    divided_s: float = 0.0
    readings: list[tuple[float, str]] = field(default_factory=list)
    openings: list[tuple[float, str]] = field(default_factory=list)

    def use(self, name: str) -> _NodeBatch:
        """Return the batch of that name; the last one goes on by the next name if it has no tasks."""
        batch = self.batches.get(name)
        if batch is None:
            last = next(iter(self.batches.values()))
            if last.tasks:
                batch = self.batches[name] = _NodeBatch(writing=self.foreign)
            else:
                batch, self.batches = last, {name: last}
        return batch

    def leave(self, name: str) -> None:
        """Remove a task from the batch of that name."""
        batch = self.batches[name]
        batch.tasks -= 1
        if not batch.tasks and len(self.batches) > 1:
            del self.batches[name]

    def elapse(self, until_s: float) -> None:
        """Count those that write until then."""
        span_s = max(until_s - self.at_s, 0.0)
        for batch in self.batches.values():
            batch.area += batch.writing * span_s
        self.at_s = max(until_s, self.at_s)

    def divide(self, until_s: float) -> None:
        """Divide the time until then among the batches that have work."""
        span_s = until_s - self.divided_s
        if span_s > 0.0 and len(self.batches) > 1:
            for batch in self.batches.values():
                if batch.working:
                    batch.lost_s += span_s * (1.0 - self.find_pace(batch))
        self.divided_s = max(until_s, self.divided_s)

    def find_pace(self, batch: _NodeBatch) -> float:
        """Return the share of the time of its GPU that a batch has now, if it has work; those of others are spread."""
        others = sum(min(one.working / self.gpus, 1.0) for one in self.batches.values() if one is not batch)
        return 1.0 / (1.0 + others)


class Writers:
    """The tasks that write, by row; constant cost per task, but for the logarithm of those that are yet to.

    Where tasks of several models are on one node the cost is linear in their number.
    """

    def __init__(self) -> None:
        self._nodes: dict[int, _NodeBatches] = defaultdict(_NodeBatches)
        self._tasks: dict[str, _Writer] = {}

    def put(self, flight: Flight, batch: str, now_s: float) -> None:
        """Add a task to a batch; the prompt of one that writes already was read before it was known here."""
        task_id, node = flight.task_id, self._nodes[flight.row]
        node.gpus = max(flight.forecast.gpus, 1.0)
        task = _Writer(
            node.use(batch),
            batch,
            reads_s=max(flight.writes_from_s - flight.forecast.times.reading_s, now_s),
            writes_s=max(flight.writes_from_s, now_s),
            prompt_tokens=flight.inference.prompt_tokens if flight.writes_from_s > now_s else 0.0,
        )
        task.batch.tasks += 1
        self._tasks[task_id] = task
        heappush(node.readings, (task.reads_s, task_id))
        heappush(node.openings, (task.writes_s, task_id))

    def remove(self, flight: Flight, now_s: float) -> None:
        """Remove a task."""
        node, task = self._advance(flight.row, now_s), self._tasks.pop(flight.task_id)
        if task.is_read:
            task.batch.working -= 1
        if task.is_writing:
            task.batch.writing -= 1.0
        elif task.is_read:
            task.batch.read_tokens -= task.prompt_tokens
        node.leave(task.name)

    def add_foreign(self, row: int, change: float, now_s: float) -> None:
        """Note that more foreign requests, or fewer, are being written."""
        node = self._advance(row, now_s)
        node.foreign += change
        for batch in node.batches.values():
            batch.writing += change

    def find_met(self, task_id: str, row: int, now_s: float) -> Met:
        """Return what a task has met in the mean since it began to read or to write; what it meets now if it has not.

        No prompts of others count before it writes.
        """
        node, task = self._advance(row, now_s), self._tasks[task_id]
        batch, pace = task.batch, node.find_pace(task.batch)
        if task.is_read and now_s > task.reads_s:
            pace = 1.0 - (batch.lost_s - task.lost_s) / (now_s - task.reads_s)
        if not task.is_writing:
            return Met(batch.writing, 0.0, pace)
        others = batch.writing - 1.0
        if now_s > task.writes_s:
            others = (batch.area - task.area) / (now_s - task.writes_s) - 1.0
        return Met(others, max(batch.read_tokens - task.read_tokens, 0.0), pace)

    def _advance(self, row: int, now_s: float) -> _NodeBatches:
        node = self._nodes[row]
        while node.openings and node.openings[0][0] <= now_s:
            writes_s, task_id = heappop(node.openings)
            task = self._tasks.get(task_id)
            if task is None or task.is_writing or task.writes_s != writes_s:
                continue
            self._read(node, writes_s)
            node.elapse(writes_s)
            task.is_writing = True
            task.area, task.read_tokens = task.batch.area, task.batch.read_tokens
            task.batch.writing += 1.0
        self._read(node, now_s)
        node.elapse(now_s)
        node.divide(now_s)
        return node

    def _read(self, node: _NodeBatches, until_s: float) -> None:
        """Count the prompts whose reading has begun by then."""
        while node.readings and node.readings[0][0] <= until_s:
            reads_s, task_id = heappop(node.readings)
            task = self._tasks.get(task_id)
            if task is not None and task.reads_s == reads_s and not task.is_read:
                node.divide(reads_s)
                task.is_read, task.lost_s = True, task.batch.lost_s
                task.batch.working += 1
                task.batch.read_tokens += task.prompt_tokens
