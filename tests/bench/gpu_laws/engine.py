"""A model server in small: a prompt is read by itself, and all tasks whose prompts have been read write together."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol

from perllm_lab.workload.arrivals import Arrival


@dataclass(slots=True)
class ServedTask:
    """One task; times are nan until they happen.

    Attributes:
        number: Of the task.
        prompt_tokens: To read.
        output_tokens: To write; reading the prompt brings the first of them.
        arrived_s: When it was sent, by the clock of the measurement.
        read_s: When the server began to read its prompt.
        first_token_s: When it had its first token.
        ended_s: When it had its last one.
        written: Tokens so far.
        slot: Its part of the cache.
    """

    number: int
    prompt_tokens: int
    output_tokens: int
    arrived_s: float
    read_s: float = math.nan
    first_token_s: float = math.nan
    ended_s: float = math.nan
    written: int = 0
    slot: int = 0


@dataclass(frozen=True, slots=True)
class GpuPass:
    """One pass through the model.

    Attributes:
        start_s: When the server began it.
        end_s: When it was complete.
        reader: Number of the task whose prompt it read; -1 for an iteration.
        tasks: How many tasks gained a token.
        tokens: Read, or attended to by all tasks together.
    """

    start_s: float
    end_s: float
    reader: int
    tasks: int
    tokens: int


class Passes(Protocol):
    """What computes; each call returns when the GPU is done."""

    def read(self, slot: int, tokens: int) -> None:
        """Read a prompt into a slot."""

    def iterate(self, slots: Sequence[int], contexts: Sequence[int]) -> None:
        """Give the task in each of the slots a token; its context includes that."""


@dataclass(slots=True)
class Engine:
    """Serves tasks as engines do that alternate: a prompt goes first if there is a slot for it, else all tasks write.

    Attributes:
        passes: What computes.
        clock: Returns seconds.
        slots: Tasks that are read or write at a time.
        ended: Tasks that are complete, in the order of their ends.
        log: All passes so far.
    """

    passes: Passes
    clock: Callable[[], float]
    slots: int
    ended: list[ServedTask] = field(default_factory=list)
    log: list[GpuPass] = field(default_factory=list)
    _waiting: deque[ServedTask] = field(default_factory=deque)
    _writing: list[ServedTask] = field(default_factory=list)
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.slots))
        heapify(self._free)

    def submit(self, task: ServedTask) -> None:
        """Add a task behind those that wait."""
        self._waiting.append(task)

    def step(self) -> bool:
        """Make one pass; return whether there was anything to do."""
        if self._waiting and self._free:
            self._read(self._waiting.popleft())
        elif self._writing:
            self._iterate()
        else:
            return False
        return True

    def _read(self, task: ServedTask) -> None:
        task.slot = heappop(self._free)
        task.read_s = self.clock()
        self.passes.read(task.slot, task.prompt_tokens)
        task.first_token_s = self.clock()
        task.written = 1
        self.log.append(GpuPass(task.read_s, task.first_token_s, task.number, 1, task.prompt_tokens))
        self._writing.append(task)
        self._release_ended(task.first_token_s)

    def _iterate(self) -> None:
        tasks = self._writing
        contexts = [task.prompt_tokens + task.written for task in tasks]
        start_s = self.clock()
        self.passes.iterate([task.slot for task in tasks], contexts)
        end_s = self.clock()
        self.log.append(GpuPass(start_s, end_s, -1, len(tasks), sum(contexts)))
        for task in tasks:
            task.written += 1
        self._release_ended(end_s)

    def _release_ended(self, now_s: float) -> None:
        ended = [task for task in self._writing if task.written >= task.output_tokens]
        for task in ended:
            task.ended_s = now_s
            heappush(self._free, task.slot)
            self._writing.remove(task)
        self.ended.extend(ended)


def serve(engine: Engine, arrivals: Sequence[Arrival], sleep: Callable[[float], None], first_number: int = 0) -> None:
    """Send tasks to an engine as they arrive, from now on, until all of them are complete."""
    start_s, coming = engine.clock(), deque(enumerate(arrivals, first_number))
    while True:
        while coming and start_s + coming[0][1].at_s <= engine.clock():
            number, one = coming.popleft()
            engine.submit(ServedTask(number, one.prompt_tokens, one.output_tokens, start_s + one.at_s))
        if engine.step():
            continue
        if not coming:
            return
        sleep(max(start_s + coming[0][1].at_s - engine.clock(), 0.0))
