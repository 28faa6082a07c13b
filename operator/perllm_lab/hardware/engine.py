"""The inference engine of a GPU: first-in first-out prefill, continuous batching, exact energy."""

from collections import deque
from heapq import heappop, heappush
from math import inf, sqrt

from perllm_lab.hardware.gpu import GpuType

SHARED_PACE = 0.94
"""What engines that divide the time of a GPU do together, as a multiple of what one of them does: changing from one to
another takes the rest (measured on an H100, docs/measured-gpu.md)."""


class EngineRun:
    """One task inside the engine. Times in simulated seconds, nan until they happen."""

    __slots__ = (
        "_decode_from_j",
        "_decode_from_tokens",
        "_ticket",
        "decode_at_s",
        "energy_j",
        "key",
        "output_tokens",
        "prefill_at_s",
        "prompt_tokens",
    )

    def __init__(self, key: str, prompt_tokens: int, output_tokens: int) -> None:
        self.key = key
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.prefill_at_s = float("nan")
        self.decode_at_s = float("nan")
        self.energy_j = 0.0
        self._decode_from_j = 0.0
        self._decode_from_tokens = 0.0
        self._ticket = 0

    @property
    def is_decoding(self) -> bool:
        """Whether it is in the decode batch."""
        return self._ticket != 0


class Engine:
    """Runs the tasks of one model on one GPU: a prefill blocks all decoding, then up to `slots` tasks decode together.

    Every decoding task gains a token an iteration, so each ends at a fixed count of tokens per task and one event costs
    O(log B) without a loop over tokens. An iteration gets longer as the contexts grow, by c B with each token per
    task: n tokens take f n + c B n^2 / 2 seconds, f being the first iteration. Its energy is constant between events,
    so energy is exact: prefill energy belongs to its task, decode energy to the decoding tasks in equal shares, idle
    energy to no task.

    Attributes:
        energy_j: Joules used so far.
        idle_energy_j: The part of it that belongs to no task.
        next_s: When the next event is due, inf while nothing runs.
        power_w: Power at the last event or `elapse`.
        batch: Tasks that decode now.
        tasks: Tasks in any state.
        prompt_tokens: Prompt tokens processed so far.
        output_tokens: Tokens generated so far.
    """

    __slots__ = (
        "_context",
        "_ends",
        "_factor",
        "_gpu",
        "_growth_s",
        "_idle_w",
        "_iteration_j",
        "_iteration_s",
        "_now_s",
        "_pace",
        "_prefill_end_s",
        "_prefilling",
        "_share",
        "_share_j",
        "_tickets",
        "_tokens",
        "_waiting",
        "batch",
        "energy_j",
        "idle_energy_j",
        "next_s",
        "output_tokens",
        "power_w",
        "prompt_tokens",
        "tasks",
    )

    def __init__(self, gpu: GpuType, *, now_s: float = 0.0) -> None:
        self._gpu = gpu
        self._now_s = now_s
        self._waiting: deque[EngineRun] = deque()
        self._prefilling: EngineRun | None = None
        self._prefill_end_s = inf
        self._ends: list[tuple[float, int, EngineRun]] = []
        self._tickets = 0
        self._tokens = 0.0
        self._context = 0.0
        self._iteration_s = 0.0
        self._growth_s = 0.0
        self._iteration_j = 0.0
        self._share_j = 0.0
        self._factor = 1.0
        self._share = 1.0
        self._pace = 1.0
        self._idle_w = gpu.idle_power_w
        self.batch = 0
        self.tasks = 0
        self.energy_j = 0.0
        self.idle_energy_j = 0.0
        self.prompt_tokens = 0
        self.output_tokens = 0.0
        self.next_s = inf
        self.power_w = gpu.idle_power_w

    @property
    def waiting(self) -> int:
        """Tasks that wait for a place in the batch."""
        return len(self._waiting)

    def generated(self, run: EngineRun) -> int:
        """Returns how many tokens a task that has not ended has gained until the last event or `elapse`."""
        return int(self._tokens - run._decode_from_tokens) if run._ticket else 0

    def submit(self, run: EngineRun, now_s: float) -> None:
        """Queues a task whose input has arrived. `now_s` is at most `next_s`."""
        self.elapse(now_s)
        self.tasks += 1
        self._waiting.append(run)
        if self._prefilling is None:
            self._plan()

    def discard(self, run: EngineRun, now_s: float) -> None:
        """Removes a task in any state; what it has used so far stays in `run.energy_j`."""
        self.elapse(now_s)
        if run is self._prefilling:
            self._prefilling = None
        elif run._ticket:
            self._leave(run)
        elif run in self._waiting:
            self._waiting.remove(run)
        else:
            return
        self.tasks -= 1
        self._plan()

    def fire(self) -> EngineRun:
        """Advances to `next_s`; returns the task that finishes there, or that begins to decode (`is_decoding`)."""
        self.elapse(self.next_s)
        run = self._prefilling
        if run is not None:
            self._prefilling = None
            self._join(run)
            self._plan()
            return run
        self._tokens, _, run = heappop(self._ends)
        self._leave(run)
        self.tasks -= 1
        self._plan()
        return run

    def elapse(self, now_s: float) -> None:
        """Advances to `now_s`, at most `next_s`."""
        span_s = now_s - self._now_s
        if span_s <= 0.0:
            return
        self._now_s = now_s
        if self._prefilling is None and self.batch:
            self._decode(span_s)
            return
        used_j = self.power_w * span_s
        self.energy_j += used_j
        if self._prefilling is not None:
            self._prefilling.energy_j += used_j
        else:
            self.idle_energy_j += used_j

    def set_speed_factor(self, factor: float, now_s: float) -> None:
        """Sets the speed from now on, as a multiple of nominal; power stays the same."""
        self._repace_prefill(self._factor, factor, now_s)
        self._factor = factor
        self._plan()

    def set_share(self, share: float, now_s: float) -> None:
        """Sets its share of the time of the GPU from now on, and so of the power; 0 only while it has no tasks."""
        if share == self._share:
            return
        pace = share * SHARED_PACE if share < 1.0 else 1.0
        self._repace_prefill(self._pace, pace, now_s)
        self._share, self._pace = share, pace
        self._plan()

    def set_powered(self, powered: bool, now_s: float) -> None:
        """Switches the GPU on or off; off, it draws nothing and must have no tasks."""
        self.elapse(now_s)
        self._idle_w = self._gpu.idle_power_w if powered else 0.0
        self._plan()

    def _repace_prefill(self, old: float, new: float, now_s: float) -> None:
        self.elapse(now_s)
        if self._prefilling is not None:
            self._prefill_end_s = now_s + (self._prefill_end_s - now_s) * old / new

    def _decode(self, span_s: float) -> None:
        first_s, growth_s = self._iteration_s, self._growth_s
        gained = 2.0 * span_s / (first_s + sqrt(first_s * first_s + 2.0 * growth_s * span_s))
        self._tokens += gained
        self.output_tokens += gained * self.batch
        used_j = gained * self._iteration_j
        self.energy_j += used_j
        self._share_j += used_j / self.batch
        self._iteration_s += growth_s * gained
        self.power_w = self._iteration_j / self._iteration_s

    def _join(self, run: EngineRun) -> None:
        self._tickets += 1
        run._ticket = self._tickets
        run.decode_at_s = self._now_s
        run._decode_from_j = self._share_j
        run._decode_from_tokens = self._tokens
        self.prompt_tokens += run.prompt_tokens
        self.batch += 1
        self._context += run.prompt_tokens - self._tokens
        heappush(self._ends, (self._tokens + run.output_tokens, run._ticket, run))

    def _leave(self, run: EngineRun) -> None:
        run._ticket = 0
        run.energy_j += self._share_j - run._decode_from_j
        self.batch -= 1
        self._context -= run.prompt_tokens - run._decode_from_tokens

    def _plan(self) -> None:
        gpu, speed = self._gpu, self._factor * self._pace
        if self._prefilling is None and self._waiting and self.batch < gpu.slots:
            run = self._waiting.popleft()
            run.prefill_at_s = self._now_s
            self._prefilling = run
            read_s = gpu.prefill_s(run.prompt_tokens) if self.batch else gpu.lone_prefill_s(run.prompt_tokens)
            self._prefill_end_s = self._now_s + read_s / speed
        if self._prefilling is not None:
            self.power_w, self.next_s = gpu.prefill_power_w * self._share, self._prefill_end_s
            return
        if not self.batch:
            self._ends.clear()
            self.power_w, self.next_s = self._idle_w * self._share, inf
            return
        ends = self._ends
        while ends[0][2]._ticket != ends[0][1]:
            heappop(ends)
        batch, left = self.batch, max(0.0, ends[0][0] - self._tokens)
        self._iteration_s = gpu.iteration_s(batch, self._context / batch + self._tokens) / speed
        self._growth_s = gpu.context_token_s * batch / speed
        # Slower, a GPU draws the same power for longer.
        self._iteration_j = gpu.iteration_j(batch) * self._share / speed
        self.power_w = self._iteration_j / self._iteration_s
        self.next_s = self._now_s + left * (self._iteration_s + 0.5 * self._growth_s * left)
