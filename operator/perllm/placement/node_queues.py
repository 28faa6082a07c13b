"""The tasks that wait for room on a node, as each namespace sees them.

Namespaces take turns, so not all tasks that wait there go before a task: of another namespace only as many as there
will be of its own. A namespace with nothing waiting sees one task of each other namespace before its own, however many
there are.
"""

import numpy as np

from perllm.policy.arrays import Index, end_of, extend
from perllm.policy.problem import FloatArray


class NodeQueues:
    """Number, slots and GPU seconds of waiting tasks by node; one task waits for one node at most."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[int, FloatArray, str]] = {}
        self._sums: FloatArray = np.zeros((3, 0))
        self._sums_of: dict[str, FloatArray] = {}
        self._sizes: dict[str, int] = {}

    def put(self, task_id: str, row: int, *, slots: float, work_s: float, namespace: str) -> None:
        """Note that a task waits for a node, for how many of its slots, and which GPU seconds of each of its GPUs."""
        self.remove(task_id)
        wanted = np.array([1.0, slots, work_s])
        self._tasks[task_id] = row, wanted, namespace
        self._sizes[namespace] = self._sizes.get(namespace, 0) + 1
        self._sums = extend(self._sums, row + 1)
        self._sums_of[namespace] = extend(self._sums_of.get(namespace, np.zeros((3, 0))), row + 1)
        for sums in (self._sums, self._sums_of[namespace]):
            sums[:, row] += wanted

    def remove(self, task_id: str) -> None:
        """Forget that a task waits; unknown tasks are ignored."""
        known = self._tasks.pop(task_id, None)
        if known is None:
            return
        row, wanted, namespace = known
        for sums in (self._sums, self._sums_of[namespace]):
            sums[:, row] = np.maximum(sums[:, row] - wanted, 0.0)
        self._sizes[namespace] -= 1
        if not self._sizes[namespace]:
            del self._sizes[namespace], self._sums_of[namespace]

    def before(self, rows: Index, namespace: str) -> tuple[FloatArray, FloatArray]:
        """Return slots and GPU seconds of the tasks that go before the next one of a namespace; shapes (n,)."""
        rows_end = end_of(rows)
        self._sums = extend(self._sums, rows_end)
        everything = self._sums[:, rows]
        others = len(self._sums_of) - (namespace in self._sums_of)
        if not others:
            return everything[1], everything[2]
        own = extend(self._sums_of.get(namespace, np.zeros((3, 0))), rows_end)[:, rows]
        theirs = np.maximum(everything - own, 0.0)
        first = np.minimum(theirs[0], others * (own[0] + 1.0)) / np.maximum(theirs[0], 1.0)
        _, slots, work_s = own + theirs * first
        return slots, work_s
