"""Places that namespaces compete for, shared so that a namespace that is slow to return them leaves some to others.

Dynamic threshold (Choudhury and Hahne 1998): a namespace may hold at most a third as many places as are free. So a
single namespace gets a quarter of them, and of 32 or more, one is left after nine namespaces have taken all they can
and returned none.
"""

from dataclasses import dataclass
from math import inf

SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class _Place:
    namespace: str
    until_s: float


class Places:
    """The places, and the tasks that hold them.

    Args:
        total: number of places.
        patience_s: a place that is held for longer counts as free.
    """

    def __init__(self, total: int, patience_s: float = inf) -> None:
        self._total = total
        self._patience_s = patience_s
        self._held: dict[str, _Place] = {}
        self._counts: dict[str, int] = {}

    def may_take(self, namespace: str, now_s: float) -> bool:
        """Whether a namespace may take a place now; one that holds none may as long as a place is free."""
        self._expire(now_s)
        free, held = self._total - len(self._held), self._counts.get(namespace, 0)
        return free > 0 and (held < SHARE * free or held == 0)

    def take(self, key: str, namespace: str, now_s: float) -> None:
        """Take a place for a task; it replaces the place that the task may already hold."""
        self.give_back(key)
        self._held[key] = _Place(namespace, now_s + self._patience_s)
        self._counts[namespace] = self._counts.get(namespace, 0) + 1

    def give_back(self, key: str) -> None:
        """Return a task's place, if it holds one."""
        place = self._held.pop(key, None)
        if place is None:
            return
        self._counts[place.namespace] -= 1
        if not self._counts[place.namespace]:
            del self._counts[place.namespace]

    def _expire(self, now_s: float) -> None:
        """Free the places that are held for too long; they are in the order in which they were taken."""
        while self._held:
            key, place = next(iter(self._held.items()))
            if place.until_s > now_s:
                return
            self.give_back(key)
