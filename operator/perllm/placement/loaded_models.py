"""The models that tasks have loaded on nodes where the real ones may not have."""

import numpy as np

from perllm.policy.arrays import extend
from perllm.policy.problem import BoolArray, IntArray


class LoadedModels:
    """Models by the rows of the nodes that have them."""

    def __init__(self) -> None:
        self._rows: dict[str, BoolArray] = {}

    def note(self, model: str, row: int) -> None:
        """Note that a task of a model runs on a node."""
        rows = extend(self._rows.get(model, np.zeros(0, dtype=np.bool_)), row + 1)
        rows[row] = True
        self._rows[model] = rows

    def has(self, model: str, rows: IntArray) -> BoolArray:
        """Return whether each node has had a task of a model, shape (n,)."""
        known = self._rows.get(model)
        if known is None:
            return np.zeros(len(rows), dtype=np.bool_)
        known = self._rows[model] = extend(known, int(rows.max(initial=-1)) + 1)
        has: BoolArray = known[rows]
        return has
