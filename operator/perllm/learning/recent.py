"""Which outcomes a node's learned state already contains, so that none is learned twice after a crash.

The learned state is written behind the hot path, so a restarted operator finds finished tasks that the state may or may
not contain. The state therefore carries the ids of the last outcomes it was made from; older ones are known by time.
That counts only from one process to the next: on a busy node a hundred later outcomes may be learned before an earlier
one, which must not be taken for known.
"""

from array import array
from collections.abc import Iterable

CAPACITY = 128
"""Far more outcomes than one node can finish between two writes of its state."""

ID_LENGTH = 13
"""Characters of a uid kept: its first 48 bits."""

END = "\n"
"""Follows every id in the text that holds them; no uid has one."""


class RecentOutcomes:
    """The last outcomes of one node, and the time before which all are contained.

    A large fleet has many of them, so the ids of a node are one text, and the times one array.

    Args:
        ids: their shortened ids, without `END`.
        times_s: when each finished.
        since_s: outcomes that finished until then are all contained.

    Raises:
        ValueError: there are more ids than times, or fewer.
    """

    def __init__(self, ids: Iterable[str] = (), times_s: Iterable[float] = (), since_s: float = 0.0) -> None:
        known = dict(zip(ids, times_s, strict=True))
        self._text = _join(known)
        self._times_s = array("d", known.values())
        self.since_s = since_s
        # Kept for the life of the process: later outcomes must not push out what an earlier process learned before all
        # of its tasks have been seen again.
        self._inherited = self._text
        self._inherited_s = since_s

    @property
    def ids(self) -> list[str]:
        """Shortened ids, in the order in which they were learned."""
        return self._text.split(END)[1:-1]

    @property
    def times_s(self) -> list[float]:
        """When each of `ids` finished."""
        return self._times_s.tolist()

    @property
    def latest_s(self) -> float:
        """When the outcome finished that finished last; 0 if there is none."""
        return max(self._times_s, default=self.since_s)

    def contains(self, task_id: str, finished_s: float) -> bool:
        """Whether the outcome of a task is one of the last, or part of the state that this one was made from."""
        line = _join([task_id[:ID_LENGTH]])
        return line in self._text or line in self._inherited or finished_s <= self._inherited_s

    def add(self, task_id: str, finished_s: float) -> None:
        """Note an outcome that is not one of the last; the one that finished first is forgotten if there are too many.

        Not the one learned first: outcomes of a burst are learned out of order, and what finished before a forgotten
        one counts as learned for the next process.
        """
        self._text += task_id[:ID_LENGTH] + END
        self._times_s.append(finished_s)
        if len(self._times_s) > CAPACITY:
            oldest = self._times_s.index(min(self._times_s))
            self._text = self._text.replace(_join([self.ids[oldest]]), END, 1)
            self.since_s = max(self.since_s, self._times_s.pop(oldest))

    def shortened(self, now_s: float) -> "RecentOutcomes":
        """Return the same without ids: all that finished until the last outcome, or until now, counts as contained.

        For nodes that are gone for long: an outcome that finished before and is still to come would not be learned.
        """
        return RecentOutcomes(since_s=min(self.latest_s, now_s))


def _join(ids: Iterable[str]) -> str:
    """Return ids as a text in which each is between two `END`s."""
    return END + "".join(one + END for one in ids)
