"""How tight the tasks in flight are: how many would miss their deadline if their node were held up, or got slower.

Notation, for a task that has written w tokens and has s seconds left, at t seconds per token
    L       length of its answer
    miss    P(L > w + s / t | L > w), the chance that it is late
    slow    slope of miss as the node gets slower: the rise of miss when 5 % of s are lost, divided by 5 %
    stall   slope of miss per second that the node is held up: slow / s
    place   of a length among the edges of the bins in which lengths are counted: scale ln L + shift
"""

from math import hypot

import numpy as np

from perllm.learning.lengths import BINS_PER_UNIT, REACH
from perllm.placement.flight import Flight
from perllm.placement.node_table import NodeTable
from perllm.policy.arrays import extend
from perllm.policy.problem import FloatArray, IntArray

NUDGE = 0.05
"""Harm is a slope, taken over this share of the time a task has left."""

FIRST_SIZE = 64

BLOCK = 8192
"""Tasks at a time: what is found on the way fits into the processor's cache."""

GROUP = 256
"""Nodes whose tasks are examined together."""


class FlightTables:
    """The tasks in flight by groups of nodes that are examined in turns, so that no decision waits for all of them."""

    def __init__(self) -> None:
        self._groups: list[FlightTable] = []
        self._next = 0

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    def put(self, flight: Flight, batch: str) -> None:
        """Add a task, which is written in the batch of that name."""
        while len(self._groups) <= flight.row // GROUP:
            self._groups.append(FlightTable(len(self._groups) * GROUP))
        self._groups[flight.row // GROUP].put(flight, batch)

    def remove(self, flight: Flight) -> None:
        """Remove a task."""
        self._groups[flight.row // GROUP].remove(flight.task_id)

    def refresh(self, nodes: NodeTable, now_s: float, shapes: FloatArray, turns: int) -> None:
        """Write to `nodes` how tight the tasks of so many groups are; those examined the longest ago come first."""
        for _ in range(min(turns, len(self))):
            self._next = (self._next + 1) % len(self)
            part = nodes.part(self._next * GROUP, (self._next + 1) * GROUP)
            harms = self._groups[self._next].find_harms(part, now_s, shapes)
            part.stall_harm[:], part.slow_harm[:], part.harmed_s[:] = harms


class FlightTable:
    """The tasks in flight on a group of nodes as arrays, in no particular order.

    Args:
        first_row: of the nodes.
    """

    def __init__(self, first_row: int = 0) -> None:
        self._first_row = first_row
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._rows = np.zeros(FIRST_SIZE, dtype=np.int64)
        self._kinds = np.zeros(FIRST_SIZE, dtype=np.int64)
        self._batches = np.zeros(FIRST_SIZE, dtype=np.int64)
        self._numbers: dict[str, int] = {}
        self._figures: FloatArray = np.zeros((6, FIRST_SIZE))

    def put(self, flight: Flight, batch: str) -> None:
        """Add a task, which is written in the batch of that name."""
        place = len(self._ids)
        if place == len(self._rows):
            self._rows = extend(self._rows, 2 * place)
            self._kinds = extend(self._kinds, 2 * place)
            self._batches = extend(self._batches, 2 * place)
            self._figures = extend(self._figures, 2 * place)
        if not place:
            self._numbers.clear()
        self._ids.append(flight.task_id)
        self._place[flight.task_id] = place
        self._rows[place], self._kinds[place] = flight.row - self._first_row, flight.length_kind
        inference, times = flight.inference, flight.forecast.times
        self._batches[place] = self._numbers.setdefault(batch, len(self._numbers))
        scale = BINS_PER_UNIT / hypot(inference.length_spread, flight.forecast.time_spread)
        self._figures[:, place] = (
            flight.due_s,
            flight.writes_from_s,
            times.solo_token_s,
            times.contention_s,
            scale,
            REACH * BINS_PER_UNIT - scale * inference.length_centre,
        )

    def remove(self, task_id: str) -> None:
        """Remove a task; the last one moves into its place."""
        place, last = self._place.pop(task_id), self._ids.pop()
        if last == task_id:
            return
        end = len(self._ids)
        self._ids[place], self._place[last] = last, place
        self._rows[place], self._kinds[place] = self._rows[end], self._kinds[end]
        self._batches[place] = self._batches[end]
        self._figures[:, place] = self._figures[:, end]

    def find_harms(
        self, nodes: NodeTable, now_s: float, shapes: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return stall and slow of each node, summed over its tasks, and how many seconds the latter matters.

        Linear in the number of tasks.

        Args:
            nodes: how busy those of the group are.
            now_s: now.
            shapes: of the answers' lengths, by kind, as the learner counts them.
        """
        count, size = len(self._ids), len(nodes)
        slow, left_s, rows = np.empty(count), np.empty(count), self._rows[:count]
        on, others, slower = self._find_company(nodes, now_s)
        lengths = _LengthTable(shapes)
        for begin in range(0, count, BLOCK):
            part = slice(begin, min(begin + BLOCK, count))
            at = on[part]
            slow[part], left_s[part] = self._find_slopes(part, others[at], slower[at], now_s, lengths)
        stall_harm = _sum_by(rows, slow / np.maximum(left_s, 0.1), size)
        slow_harm = _sum_by(rows, slow, size)
        return stall_harm, slow_harm, _sum_by(rows, slow * left_s, size) / np.maximum(slow_harm, 1e-9)

    def _find_company(self, nodes: NodeTable, now_s: float) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return for each task the number of its batch, and of each batch others per GPU and by how much it is slower.

        Others are tasks next to one of the batch. It is slower because of prompts that are read, and of other batches.
        """
        rows, names = self._rows[: len(self._ids)], len(self._numbers)
        running, gpus = nodes.running, np.maximum(nodes.gpus, 1.0)
        slower = 1.0 / (1.0 - nodes.reading_share(now_s))
        if names <= 1:
            return rows, np.maximum(running / gpus - 1.0, 0.0), slower
        keys, batches, tasks = np.unique(
            rows * names + self._batches[: len(rows)], return_inverse=True, return_counts=True
        )
        at, batch_gpus = keys // names, gpus[keys // names]
        busy = np.minimum(tasks / batch_gpus, 1.0)
        others = np.bincount(at, tasks, len(nodes))[at] - tasks
        paces = 1.0 + np.bincount(at, busy, len(nodes))[at] - busy
        return batches, np.maximum((running[at] - others) / batch_gpus - 1.0, 0.0), slower[at] * paces

    def _find_slopes(
        self, part: slice, others: FloatArray, slower: FloatArray, now_s: float, lengths: "_LengthTable"
    ) -> tuple[FloatArray, FloatArray]:
        """Return slow of a part of the tasks, and the seconds that they have left; shapes (n,).

        Args:
            part: of the table.
            others: other tasks per GPU in the batch of each task, shape (n,).
            slower: by which factor a token takes longer there because of prompts and other batches, shape (n,).
            now_s: now.
            lengths: of the answers.
        """
        due_s, writes_from_s, solo_token_s, contention_s, scale, shift = self._figures[:, part]
        token_s = (solo_token_s + contention_s * others) * slower
        left_s = np.maximum(due_s - np.maximum(now_s, writes_from_s), 0.0)
        to_write = left_s / token_s
        tokens = np.empty((3, len(left_s)))
        np.maximum(now_s - writes_from_s, 0.0, out=tokens[0])
        tokens[0] /= token_s
        np.add(tokens[0], to_write, out=tokens[1])
        np.subtract(tokens[1], NUDGE * to_write, out=tokens[2])
        np.maximum(tokens, 0.5, out=tokens)
        np.log(tokens, out=tokens)
        tokens *= scale
        tokens += shift
        written, in_time, in_time_nudged = lengths.find_shares(self._kinds[part], tokens)
        # A slope that needs no case of its own for tasks whose time is up: both shares are one.
        slow: FloatArray = (in_time - in_time_nudged) / np.maximum(1.0 - written, 1e-6) / NUDGE
        return slow, left_s


class _LengthTable:
    """Distribution functions of lengths, to be read between the edges of their bins.

    Args:
        shapes: one for each kind of length, shape (kinds, bins + 1).
    """

    def __init__(self, shapes: FloatArray) -> None:
        self._size = shapes.shape[1]
        self._shares = shapes.ravel()
        self._rises = self._shares[1:] - self._shares[:-1]

    def find_shares(self, kinds: IntArray, places: FloatArray) -> FloatArray:
        """Return which share of the lengths of its kind is below each place, in the same array; shape (..., n)."""
        np.maximum(places, 0.0, out=places)
        np.minimum(places, self._size - 1.000001, out=places)
        edges = np.floor(places)
        places -= edges
        below = edges.astype(np.int64)
        below += kinds * self._size
        places *= self._rises.take(below)
        places += self._shares.take(below)
        return places


def _sum_by(rows: IntArray, values: FloatArray, size: int) -> FloatArray:
    return np.bincount(rows, values, size).astype(np.float64)
