"""How many requests a model server processes at a time, learned from its behaviour if nothing else says it.

It counts as full, and its limit is set, when

    waiting    requests wait in it at three looks in a row, by its metrics: to the most it has processed recently
    refusal    it answers 429: to what it had in process then
    order      it has no metrics, and three times in a row a request waited until another one ended: to the number that
               were being answered then (from their first token on)

A limit that is too low does not show, since the agent sends no more. So the limit grows by an eighth, at least by one,
after half a minute in which it was reached and nothing waited. It is forgotten when the server does not answer, since
another server may come back.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from perllm.agent.engines import MAX_SLOTS, Load
from perllm.completions.answer import Answer

SIGHTS = 3
"""A single look may fall between the arrival of a request and its start."""

PEAKS_KEPT = 300
GROW_S = 30.0
GROWTH = 8
ANSWERS_KEPT = 64
LEAST_WAIT_S = 0.5
WAIT_FACTOR = 4.0
"""A request has waited if its first token took this many times as long as the fastest one's."""


class SlotLearning:
    """Learns the slots of one server.

    Args:
        now: monotonic clock, in seconds.

    Attributes:
        limit: the slots; None while they are not known.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.forget()

    def forget(self) -> None:
        """Begin again: it may be another server."""
        self.limit: int | None = None
        self._changed_s = -inf
        self._waits = 0
        self._peaks = deque[int](maxlen=PEAKS_KEPT)
        self._answers = deque[Answer](maxlen=ANSWERS_KEPT)
        self._running: list[Answer] = []
        self._orders = deque[int](maxlen=SIGHTS)
        self._has_metrics = False

    def see_load(self, load: Load, in_process: int) -> None:
        """Note what the server has, by its metrics, and how many requests are known to be in process there."""
        self._has_metrics = load.waiting is not None
        self._peaks.append(load.running or 0)
        self._waits = self._waits + 1 if load.waiting else 0
        if self._waits >= SIGHTS and max(self._peaks):
            self._set(max(self._peaks))
        elif not load.waiting and self.limit is not None and in_process >= self.limit:
            self._grow(self.limit)

    def see_refusal(self, in_process: int) -> None:
        """Note that the server accepted no more than what it had in process; one that has nothing limits its rate."""
        if in_process > 0:
            self._set(min(in_process, self.limit or MAX_SLOTS))

    def begin(self, answer: Answer) -> None:
        """Note that a request is being made."""
        self._running.append(answer)

    def end(self, answer: Answer) -> None:
        """Note that a request has ended, however it did."""
        self._running = [one for one in self._running if one is not answer]
        if self._has_metrics or answer.first_s is None or answer.sent_s is None:
            return
        self._answers.append(answer)
        slots = find_slots(answer, [*self._answers, *self._running])
        if slots is None:
            return
        self._orders.append(slots)
        if len(self._orders) == SIGHTS and len(set(self._orders)) == 1:
            self._set(slots)

    def _set(self, slots: int) -> None:
        self.limit, self._changed_s = min(max(slots, 1), MAX_SLOTS), self._now()

    def _grow(self, limit: int) -> None:
        if self._now() >= self._changed_s + GROW_S:
            self._set(limit + max(limit // GROWTH, 1))


def find_slots(answer: Answer, answers: Iterable[Answer]) -> int | None:
    """Return how many requests the server answers at a time, if this one waited until another ended; None if not.

    Args:
        answer: has its first token.
        answers: recent ones, itself included, and those in process.
    """
    known = [one for one in answers if one.first_token_s is not None]
    wait_s, first_s = answer.first_token_s or 0.0, answer.first_s or 0.0
    fastest_s = min((one.first_token_s or 0.0 for one in known), default=wait_s)
    if wait_s < max(LEAST_WAIT_S, WAIT_FACTOR * fastest_s):
        return None
    ends_s = [inf if one.ended_s is None else one.ended_s for one in known if one is not answer]
    if not any(first_s - wait_s / 2 < end_s <= first_s for end_s in ends_s):
        return None
    # Those that got their slots at the same time get their first tokens within the time that one takes.
    others = (one for one in known if one is not answer and (one.first_s or 0.0) <= first_s + fastest_s)
    return 1 + sum(one.ended_s is None or one.ended_s > first_s for one in others)
