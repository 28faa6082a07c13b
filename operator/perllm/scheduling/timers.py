"""Calls that are due at a later time, made by the owner of the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf

RESOLUTION_S = 0.001
"""A call that is due within this time is due now: a wait may end slightly early because clocks round."""


@dataclass(slots=True, order=True)
class Timer:
    """A call that is due at a time; `cancel` drops it."""

    at_s: float
    number: int
    work: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Drop the call."""
        self.work = None


MIN_KEPT = 64
"""Dropped calls are not searched for among fewer."""


class Timers:
    """Calls by the time at which they are due; equal times keep the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._number = 0
        self._kept = MIN_KEPT

    def __len__(self) -> int:
        """Number of calls that are remembered, at most twice as many as are to be made, and `MIN_KEPT`."""
        return len(self._heap)

    def call_at(self, at_s: float, work: Callable[[], None]) -> Timer:
        """Have `work` called at the given time."""
        self._number += 1
        timer = Timer(at_s, self._number, work)
        heappush(self._heap, timer)
        if len(self._heap) > self._kept:
            self._forget_dropped()
        return timer

    def run(self, now_s: float) -> None:
        """Make all calls that are due, earliest first."""
        while self._heap and self._heap[0].at_s <= now_s + RESOLUTION_S:
            work = heappop(self._heap).work
            if work is not None:
                work()

    def next_s(self) -> float:
        """Return when the next call is due; inf if there is none."""
        while self._heap and self._heap[0].work is None:
            heappop(self._heap)
        return self._heap[0].at_s if self._heap else inf

    def _forget_dropped(self) -> None:
        """Forget dropped calls, which may be hours ahead; rare, so cheap per call."""
        self._heap = [timer for timer in self._heap if timer.work is not None]
        heapify(self._heap)
        self._kept = max(MIN_KEPT, 2 * len(self._heap))
