"""The tasks that wait for a node: which of them to examine, and in which order.

Every task is examined when it is new. Then it waits in a line: for the node that suits it best, or for any node. A line
is called when its node has room again, and its tasks are examined until one remains in it. So a round costs as much as
has changed, however many tasks wait. Tasks that wait for time to pass rather than for room are not called; they are
reviewed a few at a time, in rotation.

Each namespace has its own lines. Of its tasks that are new or in called lines, the most urgent comes first. Which
namespace comes next is decided by `shares`, even for the room on a single node: a node calls the lines of all
namespaces. A task that could start without having been called, because time has passed, first yields to tasks with a
better claim (`yield_to_others`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from typing import Generic

from perllm.scheduling.backlog import NO_NODE, Backlog, Line
from perllm.scheduling.ranking import K, Rank, RankedTask
from perllm.scheduling.shares import EXAMINATION_S, Shares, Standing

REVIEW_INTERVAL_S = 0.25
"""Time between two reviews of tasks that were not called."""

MAX_REVIEWED = 4
"""Waiting tasks per review."""


@dataclass(frozen=True, slots=True, order=True)
class _Turn:
    """A namespace's claim to come next."""

    standing: Standing
    number: int
    namespace: str


class WaitingLines(Generic[K]):
    """Waiting tasks by namespace and by what they wait for. Operations on one task take logarithmic time.

    Args:
        shares: what each namespace was given; charged for what it starts and for examinations without success.
    """

    def __init__(self, shares: Shares | None = None) -> None:
        # Not by its truth: one that has not charged any namespace yet is empty.
        self._shares = Shares() if shares is None else shares
        self._namespace_of: dict[K, str] = {}
        self._for_room: set[K] = set()
        self._backlogs: dict[str, Backlog[K]] = {}
        self._waiters: dict[Line, dict[str, None]] = {}
        self._due: dict[str, None] = {}
        self._turns: list[_Turn] = []
        self._examined: set[tuple[str, Line]] = set()
        self._is_cut_short = False
        self._next_review_s = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._namespace_of)

    def __contains__(self, key: object) -> bool:
        return key in self._namespace_of

    def add(self, key: K, rank: Rank, *, namespace: str = "", priority: float = 0.0) -> None:
        """Queue a task to be examined; one that already waits is moved. Equal ranks keep the order of arrival.

        Args:
            key: the task.
            rank: its place in the order of its namespace.
            namespace: whose share it is charged to; it never changes.
            priority: from -1 to 1; moves its namespace forward or back by this fraction of `LEAD_S`.
        """
        self._namespace_of[key] = namespace
        self._number += 1
        self._backlogs.setdefault(namespace, Backlog()).add(RankedTask(rank, self._number, key, priority))
        self._due[namespace] = None

    def requeue(self, key: K) -> None:
        """Have a waiting task examined again."""
        namespace = self._namespace_of.get(key)
        if namespace is not None:
            self._backlogs[namespace].requeue(key)
            self._due[namespace] = None

    def requeue_all(self) -> None:
        """Have every task examined again: much has changed."""
        for namespace, backlog in self._backlogs.items():
            backlog.requeue_all()
            self._due[namespace] = None

    @property
    def for_room(self) -> int:
        """Number of tasks that waited for nothing but room when they were last examined."""
        return len(self._for_room)

    def wait(self, key: K, line: Line, *, is_for_room: bool = False) -> None:
        """Put a task that was examined into a line; `is_for_room` if it would start on a node that is full."""
        namespace = self._namespace_of.get(key)
        if namespace is not None:
            self._backlogs[namespace].wait(key, line)
            (self._for_room.add if is_for_room else self._for_room.discard)(key)
            if line != NO_NODE:
                self._waiters.setdefault(line, {})[namespace] = None

    def remove(self, key: K, *, work_s: float = 0.0) -> None:
        """Remove a task, and charge its namespace `work_s` GPU seconds if it starts; unknown tasks are ignored."""
        namespace = self._namespace_of.pop(key, None)
        self._for_room.discard(key)
        if namespace is None:
            return
        backlog = self._backlogs[namespace]
        backlog.remove(key)
        if not backlog:
            del self._backlogs[namespace]
            self._due.pop(namespace, None)
        if work_s > 0:
            self._shares.charge(namespace, work_s)

    def call(self, row: int) -> None:
        """Note that a node has room again: its line is called, and so are the lines of tasks that wait for any node."""
        for line in [row, *(line for line in self._waiters if not isinstance(line, int))]:
            self._call(line)

    def next_s(self, now_s: float) -> float:
        """Return when `due` must be called next even if nothing happens; inf for never."""
        return max(self._next_review_s, now_s) if self._namespace_of else inf

    def due(self, now_s: float, may_start: Callable[[str], bool] = lambda _: True) -> Iterator[K]:
        """Yield the tasks to examine now; the caller puts each into a line or removes it before it takes the next.

        The caller may stop at any time: tasks that were not yielded come the next time, as part of the same round, and
        so do the tasks of namespaces that may not start any now.
        """
        in_turn = self._pick_for_review(now_s)
        if not self._is_cut_short:
            self._examined.clear()
        # Until all have had their turn: one that yields would never have its own if each part began a round.
        self._is_cut_short = True
        self._turns = [turn for namespace in list(self._due) if (turn := self._turn(namespace)) is not None]
        heapify(self._turns)
        yield from self._serve(may_start)
        for key in in_turn:
            namespace = self._namespace_of.get(key, "")
            if key in self._namespace_of and self._backlogs[namespace].is_in_line(key) and may_start(namespace):
                yield key
                yield from self._serve(may_start)
        self._is_cut_short = False

    def yield_to_others(self, key: K, row: int) -> bool:
        """Return whether a task that could start on a node has to yield; it is then examined again after the others.

        The others belong to namespaces with a better claim, wait for this node or for any, and were neither yielded to
        nor examined without success in this round. Linear in the number of namespaces that wait like that.
        """
        namespace = self._namespace_of[key]
        own = self._shares.standing(namespace, self._backlogs[namespace].entry(key).priority)
        passing = [
            (other, line)
            for line in [row, *(line for line in self._waiters if not isinstance(line, int))]
            for other in self._waiters.get(line, ())
            if other != namespace and (other, line) not in self._examined and self._has_better_claim(other, line, own)
        ]
        for other, line in passing:
            self._examined.add((other, line))
            self._backlogs[other].call(line)
            self._put_turn(other)
        if passing:
            self._backlogs[namespace].requeue_current(key)
            self._put_turn(namespace)
        return bool(passing)

    def _has_better_claim(self, namespace: str, line: Line, before: Standing) -> bool:
        backlog = self._backlogs.get(namespace)
        head = backlog.head(line) if backlog is not None else None
        return head is not None and self._shares.standing(namespace, head.priority) < before

    def _serve(self, may_start: Callable[[str], bool]) -> Iterator[K]:
        """Yield the tasks of all namespaces that have something to examine, each in its turn."""
        while self._turns:
            namespace = heappop(self._turns).namespace
            turn = self._turn(namespace)
            if turn is None or not may_start(namespace):
                continue
            if self._turns and self._turns[0] < turn:
                heappush(self._turns, turn)  # the virtual time has advanced since the claim was queued
                continue
            yield from self._examine_first(namespace)
            self._put_turn(namespace)

    def _put_turn(self, namespace: str) -> None:
        turn = self._turn(namespace)
        if turn is not None:
            self._due[namespace] = None
            heappush(self._turns, turn)

    def _examine_first(self, namespace: str) -> Iterator[K]:
        """Yield the first task of a namespace, which pays for the examination if the task does not start."""
        backlog = self._backlogs[namespace]
        for key in backlog.examine_first():
            yield key
            if key in self._namespace_of:
                self._shares.charge(namespace, EXAMINATION_S)
                self._examined.add((namespace, backlog.line_of(key)))

    def _turn(self, namespace: str) -> _Turn | None:
        """Return a namespace's claim; None once it has nothing to examine."""
        backlog = self._backlogs.get(namespace)
        first = backlog.first() if backlog is not None else None
        if first is None:
            self._due.pop(namespace, None)
            return None
        return _Turn(self._shares.standing(namespace, first.priority), first.number, namespace)

    def _call(self, line: Line) -> None:
        waiters = self._waiters.get(line, {})
        for namespace in list(waiters):
            backlog = self._backlogs.get(namespace)
            if backlog is not None and backlog.call(line):
                self._due[namespace] = None
            else:
                del waiters[namespace]
        if not waiters:
            self._waiters.pop(line, None)

    def _pick_for_review(self, now_s: float) -> list[K]:
        """Return the tasks to review now that time has passed: a few, from the namespaces in rotation."""
        if now_s < self._next_review_s:
            return []
        self._next_review_s = now_s + REVIEW_INTERVAL_S
        namespaces = list(islice(self._backlogs, MAX_REVIEWED))
        keys: list[K] = []
        for namespace in namespaces:
            backlog = self._backlogs[namespace] = self._backlogs.pop(namespace)
            keys += backlog.rotate(MAX_REVIEWED // len(namespaces))
        return keys
