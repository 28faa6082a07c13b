"""The inference engine of a node: first-in first-out prefill, continuous batching, exact energy."""

from collections import deque
from heapq import heappop, heappush
from math import inf

from perllm_lab.hardware.gpu import GpuType


class Run:
    """One task inside the engine. Times in simulated seconds, nan until they happen."""

    __slots__ = ("_decode_from_j", "_end_tokens", "energy_j", "key", "output_tokens", "prefill_at_s", "prompt_tokens")

    def __init__(self, key: str, prompt_tokens: int, output_tokens: int) -> None:
        self.key = key
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.prefill_at_s = float("nan")
        self.energy_j = 0.0
        self._decode_from_j = 0.0
        self._end_tokens = 0.0


class Engine:
    """Runs tasks on one GPU: a prefill blocks all decoding, then up to `slots` tasks decode together.

    Every decoding task gains 1 / (a + b B) tokens a second, so each ends at a fixed count of tokens per task and one
    event costs O(log B) without a loop over tokens. Power is constant between events, so energy is exact: prefill
    energy belongs to its task, decode energy to the decoding tasks in equal shares, idle energy to nobody.
    """

    __slots__ = (
        "_decoding",
        "_ends",
        "_gpu",
        "_now_s",
        "_prefill_end_s",
        "_prefilling",
        "_share_j",
        "_tokens",
        "_waiting",
        "energy_j",
        "idle_energy_j",
        "next_s",
        "power_w",
    )

    def __init__(self, gpu: GpuType, *, now_s: float = 0.0) -> None:
        self._gpu = gpu
        self._now_s = now_s
        self._waiting: deque[Run] = deque()
        self._prefilling: Run | None = None
        self._prefill_end_s = inf
        self._decoding: dict[str, Run] = {}
        self._ends: list[tuple[float, str]] = []
        self._tokens = 0.0
        self._share_j = 0.0
        self.energy_j = 0.0
        self.idle_energy_j = 0.0
        self.next_s = inf
        self.power_w = gpu.idle_power_w

    @property
    def batch(self) -> int:
        """Tasks in the decode batch now."""
        return len(self._decoding)

    @property
    def waiting(self) -> int:
        """Tasks that wait for their prefill."""
        return len(self._waiting)

    def submit(self, run: Run, now_s: float) -> None:
        """Queues a task whose input has arrived. `now_s` is at most `next_s`."""
        self.elapse(now_s)
        self._waiting.append(run)
        self._plan()

    def discard(self, run: Run, now_s: float) -> None:
        """Takes a task out in whatever state it is; what it has used so far stays in `run.energy_j`."""
        self.elapse(now_s)
        if run is self._prefilling:
            self._prefilling = None
        elif self._decoding.pop(run.key, None) is not None:
            run.energy_j += self._share_j - run._decode_from_j
        elif run in self._waiting:
            self._waiting.remove(run)
        self._plan()

    def fire(self) -> Run | None:
        """Goes on to `next_s`; returns the task that finishes there, or None when a prefill ended."""
        self.elapse(self.next_s)
        done = None
        if self._prefilling is not None:
            self._join(self._prefilling)
            self._prefilling = None
        else:
            self._tokens, key = heappop(self._ends)
            done = self._decoding.pop(key)
            done.energy_j += self._share_j - done._decode_from_j
        self._plan()
        return done

    def elapse(self, now_s: float) -> None:
        """Lets time pass to `now_s`, at most `next_s`."""
        span_s = now_s - self._now_s
        if span_s <= 0.0:
            return
        self._now_s = now_s
        used_j = self.power_w * span_s
        self.energy_j += used_j
        if self._prefilling is not None:
            self._prefilling.energy_j += used_j
        elif self._decoding:
            batch = len(self._decoding)
            self._share_j += used_j / batch
            self._tokens += span_s / self._gpu.iteration_s(batch)
        else:
            self.idle_energy_j += used_j

    def _join(self, run: Run) -> None:
        run._decode_from_j = self._share_j
        run._end_tokens = self._tokens + run.output_tokens
        self._decoding[run.key] = run
        heappush(self._ends, (run._end_tokens, run.key))

    def _plan(self) -> None:
        if self._prefilling is None and self._waiting and len(self._decoding) < self._gpu.slots:
            run = self._waiting.popleft()
            run.prefill_at_s = self._now_s
            self._prefilling = run
            self._prefill_end_s = self._now_s + self._gpu.prefill_s(run.prompt_tokens)
        if self._prefilling is not None:
            self.power_w, self.next_s = self._gpu.prefill_power_w, self._prefill_end_s
            return
        self._drop_stale_ends()
        if not self._decoding:
            self.power_w, self.next_s = self._gpu.idle_power_w, inf
            return
        batch = len(self._decoding)
        left = max(0.0, self._ends[0][0] - self._tokens)
        self.power_w = self._gpu.decode_power_w(batch)
        self.next_s = self._now_s + left * self._gpu.iteration_s(batch)

    def _drop_stale_ends(self) -> None:
        while self._ends:
            end_tokens, key = self._ends[0]
            run = self._decoding.get(key)
            if run is not None and run._end_tokens == end_tokens:
                return
            heappop(self._ends)
