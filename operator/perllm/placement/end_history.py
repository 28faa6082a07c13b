"""How containers ended elsewhere: whether failures are the node's, or the tasks' own.

A failure is the task's own, rather than the node's, unless the comparison says otherwise:
    * a task that failed on two nodes is evidence against neither;
    * of the tasks of the same namespaces and the same model that ended elsewhere since the first of the failures, more
      have to have succeeded than failed: a broken image opens no circuit, since nothing succeeds elsewhere.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from perllm.placement.bounded import remember
from perllm.placement.circuit import Attempt, BadEnd

MAX_ENDS = 64
"""Ends kept per namespace."""


@dataclass(frozen=True, slots=True)
class _End:
    node: str
    model: str
    is_good: bool
    at_s: float


class EndHistory:
    """The last ends of containers, by namespace, and the nodes on which tasks failed."""

    def __init__(self) -> None:
        self._ends: OrderedDict[str, deque[_End]] = OrderedDict()
        self._failed_on: OrderedDict[str, set[str]] = OrderedDict()

    def add_success(self, attempt: Attempt, now_s: float) -> None:
        """Note a task that succeeded."""
        self._add(attempt, now_s, is_good=True)

    def add_failure(self, attempt: Attempt, now_s: float) -> Collection[str]:
        """Note a container that failed; return all nodes on which its task has failed."""
        self._add(attempt, now_s, is_good=False)
        nodes = remember(self._failed_on, attempt.task_id, set)
        nodes.add(attempt.node)
        return nodes

    def forget(self, task_id: str) -> None:
        """Forget on which nodes a task failed; its ends still count."""
        self._failed_on.pop(task_id, None)

    def is_better_elsewhere(self, node: str, failures: Sequence[BadEnd]) -> bool:
        """Whether more tasks of the kind that failed on a node succeeded than failed on others since it began."""
        first_s, models = min(one.at_s for one in failures), {one.attempt.model for one in failures}
        good = total = 0
        for namespace in {one.attempt.namespace for one in failures}:
            for end in self._ends.get(namespace, ()):
                if end.node != node and end.model in models and end.at_s >= first_s:
                    good, total = good + end.is_good, total + 1
        return 2 * good > total

    def _add(self, attempt: Attempt, now_s: float, *, is_good: bool) -> None:
        ends = remember(self._ends, attempt.namespace, lambda: deque(maxlen=MAX_ENDS))
        ends.append(_End(attempt.node, attempt.model, is_good, now_s))
