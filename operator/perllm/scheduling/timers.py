"""Calls that are due at a later time, made by the owner of the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
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


class Timers:
    """Calls by the time at which they are due; equal times keep the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._number = 0

    def call_at(self, at_s: float, work: Callable[[], None]) -> Timer:
        """Have `work` called at the given time."""
        self._number += 1
        timer = Timer(at_s, self._number, work)
        heappush(self._heap, timer)
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
