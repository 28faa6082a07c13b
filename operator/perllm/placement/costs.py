"""What a joule costs on each node, now and later, relative to the mean of all nodes and times.

It is 1 wherever nothing is known, so that energy counts as such.
"""

from collections.abc import Mapping

import numpy as np

from perllm.costs.outlook import STEP_S, CostOutlook
from perllm.policy.arrays import extend
from perllm.policy.problem import FloatArray, IntArray


class JouleCosts:
    """Relative costs of joules by row of the fleet."""

    def __init__(self) -> None:
        self._begin_s = 0.0
        self._series = np.ones((1, 1))
        self._series_of_row = np.zeros(0, dtype=np.int64)

    def put(self, outlook: CostOutlook, rows: Mapping[str, int]) -> None:
        """Replace what is known; `rows` are those of the nodes, of which unknown ones are left out."""
        steps = len(outlook.series[0]) if outlook.series else 1
        self._begin_s = outlook.begin_s
        self._series = np.array([(1.0,) * steps, *outlook.series])
        self._series_of_row = np.zeros(max(rows.values(), default=-1) + 1, dtype=np.int64)
        for name, place in outlook.of_node.items():
            if name in rows:
                self._series_of_row[rows[name]] = 1 + place

    def at(self, rows: IntArray, time_s: float) -> FloatArray:
        """Return what a joule costs on each node at a Unix time, shape (n,)."""
        return self.over(rows, time_s, 1)[:, 0]

    def over(self, rows: IntArray, from_s: float, steps: int) -> FloatArray:
        """Return what it costs in each of `steps` steps, the first of which contains a Unix time; shape (n, steps).

        Steps after the last known one are assumed to cost as much as that; callers ask for a day at most.
        """
        if len(self._series) == 1:
            return np.ones((len(rows), steps))
        self._series_of_row = extend(self._series_of_row, int(rows.max(initial=-1)) + 1)
        first = int((from_s - self._begin_s) // STEP_S)
        columns = np.clip(np.arange(first, first + steps), 0, self._series.shape[1] - 1)
        costs: FloatArray = self._series[self._series_of_row[rows][:, None], columns]
        return costs
