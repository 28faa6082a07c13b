"""The clock of a simulated run, and the events that are planned."""

from enum import IntEnum
from heapq import heappop, heappush
from math import inf


class Trigger(IntEnum):
    """Why something happens. Entries of the same moment are handled in this order.

    A task that completes exactly at its deadline is in time, so nodes come before deadlines.
    """

    NODE = 0
    CHANGE = 1
    DEADLINE = 2
    SCRAPE = 3
    WINDOW = 4
    ARRIVAL = 5
    WAKEUP = 6


class Agenda:
    """The clock of a run and its entries: a moment, a cause, and a number that identifies the node, task or change."""

    __slots__ = ("_heap", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, Trigger, int]] = []

    def plan(self, at_s: float, cause: Trigger, number: int = 0) -> None:
        """Add an entry; one in the past is due now."""
        heappush(self._heap, (at_s, cause, number))

    def next_s(self) -> float:
        """When the next entry is due; inf without one."""
        return self._heap[0][0] if self._heap else inf

    def pop(self) -> tuple[Trigger, int] | None:
        """Take the next entry of this moment; None when there are no more."""
        if not self._heap or self._heap[0][0] > self.now_s:
            return None
        _, cause, number = heappop(self._heap)
        return cause, number
