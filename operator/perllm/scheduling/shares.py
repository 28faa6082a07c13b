"""How namespaces share the nodes: start-time fair queueing (Goyal, Vin and Cheng 1996) over predicted GPU seconds.

Notation, for a namespace i
    w(i)   its weight, 1 unless configured
    F(i)   its finish tag: where what it was given so far has brought it, in GPU seconds per unit of weight
    V      the present virtual time: the largest start tag so far
    B      BACKLOG_S: how much a namespace may catch up after it asked for less than its share
    S(i)   start tag of its next task, max(F(i), V - B), so that a namespace that was idle catches up to the present
    p(i)   priority of its next task, from -1 to 1
    L      LEAD_S, at most B / 2

    order      smallest S(i) - L p(i) first; of equals the smallest F(i), then the one whose task has waited longest
    charge     F(i) becomes S(i) + cost / w(i), V becomes max(V, S(i)). A start costs its predicted work; examining a
               task without success costs E = EXAMINATION_S, or a backlog that fits nowhere would be examined forever
    refund     F(i) falls by the cost of a start that was not carried out

Bounds. A namespace j that goes before i has S(j) <= S(i) + L (p(j) - p(i)), so V stays, and with it S(i), while i waits
for its turn. A namespace that was idle has the smallest possible tag, V - B. So from the moment its first task may be
examined until it is, any other namespace j starts at most
    one task, and before it tasks of w(j) L (p(j) - p(i)) GPU seconds where its priority is higher,
regardless of its backlog, the length of its tasks and the number of its denials, and has at most
1 + w(j) L (p(j) - p(i)) / E examinations without success. Between two namespaces that always have tasks of equal
priority that could start, what each was given per unit of weight differs by at most the longest task of either.
"""

from collections.abc import Mapping
from math import inf

BACKLOG_S = 30.0
LEAD_S = 10.0
EXAMINATION_S = 0.01

MIN_REMEMBERED = 64
"""Namespaces that are remembered in any case, even when they have caught up."""

Standing = tuple[float, float]
"""Smaller comes first."""


class Shares:
    """What each namespace was given; see the module's notation.

    Args:
        weights: by namespace, above 0; 1 for all others.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._finish_s: dict[str, float] = {}
        self._present_s = 0.0
        self._remembered = MIN_REMEMBERED

    def __len__(self) -> int:
        """Number of namespaces that are remembered."""
        return len(self._finish_s)

    def standing(self, namespace: str, priority: float) -> Standing:
        """Return the standing of a namespace whose next task has this priority, from -1 to 1."""
        return self._start_s(namespace) - LEAD_S * priority, self._finish_s.get(namespace, -inf)

    def charge(self, namespace: str, cost_s: float) -> None:
        """Count GPU seconds as given to a namespace."""
        start_s = self._start_s(namespace)
        self._present_s = max(self._present_s, start_s)
        self._finish_s[namespace] = start_s + cost_s / self._weight(namespace)
        if len(self._finish_s) > self._remembered:
            self._forget_idle()

    def refund(self, namespace: str, cost_s: float) -> None:
        """Undo a charge for a start that was not carried out."""
        if namespace in self._finish_s:
            self._finish_s[namespace] -= cost_s / self._weight(namespace)

    def _start_s(self, namespace: str) -> float:
        return max(self._finish_s.get(namespace, -inf), self._present_s - BACKLOG_S)

    def _weight(self, namespace: str) -> float:
        return self._weights.get(namespace, 1.0)

    def _forget_idle(self) -> None:
        """Forget the namespaces that have caught up; rare, so cheap per charge."""
        caught_up_s = self._present_s - BACKLOG_S
        self._finish_s = {name: finish_s for name, finish_s in self._finish_s.items() if finish_s > caught_up_s}
        self._remembered = max(MIN_REMEMBERED, 2 * len(self._finish_s))
