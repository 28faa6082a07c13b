"""The models that tasks load on nodes where the real ones may not have."""

from collections import OrderedDict

import numpy as np

from perllm.policy.arrays import Index, end_of, extend
from perllm.policy.problem import FloatArray

MAX_MODELS = 512
"""Any tenant may ask for a model of any name; the one that was placed the longest ago is forgotten first."""


class LoadedModels:
    """When nodes began to load models, by the monotonic clock."""

    def __init__(self) -> None:
        self._from_s: OrderedDict[str, FloatArray] = OrderedDict()

    def note(self, model: str, row: int, now_s: float) -> None:
        """Note that a task of a model was placed on a node, which loads it unless it is loaded or loading."""
        known = self._cover(model, row + 1)
        known[row] = min(known[row], now_s)
        self._from_s.move_to_end(model)
        if len(self._from_s) > MAX_MODELS:
            self._from_s.popitem(last=False)

    def forget(self, row: int) -> None:
        """Note that a node has left: whichever joins in its place has no model loaded."""
        for known in self._from_s.values():
            known[row : row + 1] = np.inf

    def cold(self, model: str, rows: Index, load_s: FloatArray, now_s: float) -> FloatArray:
        """Return which share of the loading time each node still needs, shape (n,).

        Args:
            model: the model.
            rows: the nodes.
            load_s: how long each of them takes to load it, shape (n,).
            now_s: now.
        """
        if model not in self._from_s:
            return np.ones(len(load_s))
        from_s = self._cover(model, end_of(rows))[rows]
        left: FloatArray = np.clip(1.0 - (now_s - from_s) / np.maximum(load_s, 1e-9), 0.0, 1.0)
        return left

    def _cover(self, model: str, rows: int) -> FloatArray:
        known = self._from_s[model] = extend(self._from_s.get(model, np.zeros(0)), rows, fill=np.inf)
        return known
