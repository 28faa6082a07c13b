"""How the models on a node divide it, as is to be expected while one more task is there.

Each model has a batch of its own, and those that have work divide the time of a GPU equally. Notation, for a model that
has n tasks on a node now, had N in the mean of the last seconds, and had any in a share b of them
    tasks   (n + N) / 2
    share   of the tasks of all models: what the table of nodes counts for all of them is divided by it
    busy    chance that the model has work for a GPU: (c + b) / 2 with c = 1 if n > 0, else 0; but at most the tasks per
            GPU that write
    others  sum of busy over all other models: next to them a model takes 1 + others times as long
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import numpy as np

from perllm.placement.node_table import AVERAGE_S, NodeTable
from perllm.policy.arrays import Index, end_of, extend
from perllm.policy.problem import FloatArray, IntArray

FORGET_S = 6.0 * AVERAGE_S
"""After so long without tasks, hardly anything is left of a model in the averages."""

FIRST_SIZE = 64


@dataclass(frozen=True, slots=True)
class Division:
    """What a model has of each of n nodes; all arrays have shape (n,).

    Attributes:
        share: of the tasks that are to be expected there.
        busy: chance that it has work for a GPU there.
        others: how many other models are to be expected to have work for that GPU.
        pace: share of the time of that GPU that it is to be expected to have.
        is_whole: whether there are no other models at all, as in most fleets: then there is less to compute.
    """

    share: FloatArray
    busy: FloatArray
    others: FloatArray
    pace: FloatArray
    is_whole: bool = False


class BatchTable:
    """The batches of all nodes, by row and name, which is that of a model, as arrays; constant cost per change."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], int] = {}
        self._numbers: dict[str, int] = {}
        self._rows: IntArray = np.zeros(FIRST_SIZE, dtype=np.int64)
        self._batches: IntArray = np.zeros(FIRST_SIZE, dtype=np.int64)
        self._figures: FloatArray = np.zeros((4, FIRST_SIZE))
        self._whole = _find_whole(0)

    def __len__(self) -> int:
        """Return how many batches are remembered."""
        return len(self._places)

    def has_others(self, model: str) -> bool:
        """Whether there have been tasks of any other model lately; without a model all tasks are taken as one's."""
        return len(self._numbers) > (model in self._numbers) and model != ""

    def count(self, row: int, batch: str, change: int, now_s: float) -> None:
        """Count tasks that came to a batch of a node, or left it."""
        place = self._places.get((row, batch))
        if place is None:
            place = self._begin(row, batch, now_s)
        tasks, mean_tasks, mean_busy, changed_s = self._figures[:, place].tolist()
        rest = 1.0 - exp((changed_s - now_s) / AVERAGE_S)
        mean_tasks += (tasks - mean_tasks) * rest
        mean_busy += ((tasks > 0.0) - mean_busy) * rest
        self._figures[:, place] = tasks + change, mean_tasks, mean_busy, now_s

    def divide(
        self, model: str, rows: Index, nodes: NodeTable, now_s: float, *, names: Mapping[int, str] | None = None
    ) -> Division:
        """Return what a model has of nodes; linear in them, and in the number of models on each.

        Args:
            model: the model.
            rows: of the nodes.
            nodes: their figures now.
            now_s: now.
            names: of its batches, by row, where these are not its own.
        """
        size, names = len(nodes), names or {}
        if not names and not self.has_others(model):
            if len(self._whole.share) != size:
                self._whole = _find_whole(size)
            return self._whole
        at, numbers, tasks, busy = self._select(rows, size, now_s)
        is_own = (numbers == self._number_own(model, rows, size, names)[at]).astype(np.float64)
        present = 0.5 * (nodes.running + nodes.occupancy) * np.maximum(nodes.gpus, 1.0)
        writing = nodes.expected_occupancy() / np.maximum(present, 1e-9)
        busy = np.minimum(busy, tasks * writing[at])
        of_all, of_own = np.bincount(at, tasks, size), np.bincount(at, tasks * is_own, size)
        own_busy: FloatArray = np.bincount(at, busy * is_own, size).astype(np.float64)
        others = np.bincount(at, busy, size) - own_busy
        return Division(
            share=np.divide(of_own, of_all, out=np.ones(size), where=of_all > 0.0),
            busy=own_busy,
            others=others,
            pace=1.0 / (1.0 + others),
        )

    def find_share(self, row: int, batch: str, now_s: float) -> float:
        """Return the share of a batch in the tasks that are to be expected on a node; all where there are none."""
        places = np.flatnonzero(self._rows[: len(self._places)] == row)
        tasks, mean_tasks, _, changed_s = self._figures[:, places]
        expected = tasks + 0.5 * (mean_tasks - tasks) * np.exp((changed_s - now_s) / AVERAGE_S)
        total, own = float(expected.sum()), self._places.get((row, batch), -1)
        return float(expected[places == own].sum()) / total if total > 0.0 else 1.0

    def _number_own(self, model: str, rows: Index, size: int, names: Mapping[int, str]) -> IntArray:
        """Return the number of the batch of a model on each node, -1 where there is none."""
        own = np.full(size, self._numbers.get(model, -1))
        if names:
            positions = self._find_positions(rows, size)
            known = [row for row in names if row < len(positions) and positions[row] >= 0]
            own[positions[known]] = [self._numbers.get(names[row], -1) for row in known]
        return own

    def _find_positions(self, rows: Index, size: int) -> IntArray:
        """Return the positions of all rows among some, -1 where they are not among them."""
        last = int(self._rows[: len(self._places)].max(initial=-1))
        positions = np.full(max(end_of(rows), last + 1), -1)
        positions[rows] = np.arange(size)
        return positions

    def _select(self, rows: Index, size: int, now_s: float) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Return each batch on the nodes: the position of its node among them, its number, its tasks, and busy."""
        positions = self._find_positions(rows, size)[self._rows[: len(self._places)]]
        chosen = np.flatnonzero(positions >= 0)
        tasks, mean_tasks, mean_busy, changed_s = self._figures[:, chosen]
        rest, any_there = 1.0 - np.exp((changed_s - now_s) / AVERAGE_S), (tasks > 0.0).astype(np.float64)
        mean_tasks += (tasks - mean_tasks) * rest
        mean_busy += (any_there - mean_busy) * rest
        return positions[chosen], self._batches[chosen], 0.5 * (tasks + mean_tasks), 0.5 * (any_there + mean_busy)

    def _begin(self, row: int, batch: str, now_s: float) -> int:
        """Return the place of a batch that there is none for yet."""
        if len(self._places) == len(self._rows):
            self._forget(now_s)
            size = max(len(self._rows), 2 * len(self._places))
            self._rows, self._batches = extend(self._rows, size), extend(self._batches, size)
            self._figures = extend(self._figures, size)
        place = self._places[row, batch] = len(self._places)
        self._rows[place], self._batches[place] = row, self._numbers.setdefault(batch, len(self._numbers))
        self._figures[:, place] = 0.0, 0.0, 0.0, now_s
        return place

    def _forget(self, now_s: float) -> None:
        """Forget the batches that have had no tasks for long; there is one in each place."""
        tasks, _, _, changed_s = self._figures
        kept, keys = np.flatnonzero((tasks > 0.0) | (now_s - changed_s < FORGET_S)), list(self._places)
        keys = [keys[place] for place in kept.tolist()]
        self._places = {key: place for place, key in enumerate(keys)}
        self._numbers = {batch: number for number, batch in enumerate(dict.fromkeys(batch for _, batch in keys))}
        self._rows[: len(kept)] = self._rows[kept]
        self._batches[: len(kept)] = [self._numbers[batch] for _, batch in keys]
        self._figures[:, : len(kept)] = self._figures[:, kept]


def _find_whole(size: int) -> Division:
    """Return what the only model has of so many nodes; it is kept, and so must not be written to."""
    none, whole = np.zeros(size), np.ones(size)
    none.flags.writeable = whole.flags.writeable = False
    return Division(share=whole, busy=none, others=none, pace=whole, is_whole=True)
