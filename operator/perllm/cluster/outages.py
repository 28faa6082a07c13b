"""Logs an outage once when it begins and once when it ends, however many attempts fail in between.

An API server that is down breaks every watch and write at the same time. That is one outage: the first failure is
logged, and the outage lasts until all of them work again. An API server that has just started denies requests until it
has read the roles, and has no answer for some resources; that belongs to the same outage. One that is shutting down
still answers on some connections, so an outage ends only when nothing has failed for a moment.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

API_SERVER = "API server"

WARM_UP_S = 20.0
"""For so long errors that an API server answers with belong to its outage, while that lasts."""


SETTLED_S = 2.0
"""An outage ends with a success that nothing has failed for so long before."""

WORKS, GIVEN_UP = "works again", "is no longer tried"


@dataclass(slots=True)
class _Outage:
    since_s: float
    failed_s: float
    failures: int = 0
    ended_s: float | None = None
    end: str = WORKS


class Outages:
    """Current outages by topic; thread-safe.

    Args:
        now: monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._current: dict[str, _Outage] = {}
        self._answered_s: dict[str, float] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._names

    def failed(self, topic: str, words: object, *, is_unanswered: bool = False) -> None:
        """Record a failed attempt; only the first one of an outage is logged.

        Args:
            topic: what does not work.
            words: why it does not work.
            is_unanswered: whether the cause is that the API server does not answer.
        """
        with self._lock:
            self._log_ends()
            name = self._find_cause(topic, is_unanswered)
            if self._names.get(topic, name) != name:
                self._end(topic)  # the cause is another one now
            self._names[topic] = name
            outage = self._current.get(name)
            if outage is None:
                outage = self._current[name] = _Outage(self._now(), self._now())
                log.warning("%s: %s; retrying until it works", name, words)
            outage.failures += 1
            outage.failed_s, outage.ended_s = self._now(), None

    def worked(self, topic: str) -> None:
        """Record a success; an outage ends with it if no other topic still fails for its cause."""
        with self._lock:
            self._answered_s.pop(topic, None)
            self._end(topic)
            self._log_ends()

    def forget(self, topic: str) -> None:
        """Forget a topic of which nothing is left to be tried: whether it works again is not known."""
        with self._lock:
            self._answered_s.pop(topic, None)
            self._end(topic, GIVEN_UP)
            self._log_ends()

    def _end(self, topic: str, end: str = WORKS) -> None:
        # A topic that was forgotten has no name, but its outage may not be logged as ended yet.
        name = self._names.pop(topic, topic)
        outage = self._current.get(name)
        if outage is None or name in self._names.values():
            return
        outage.end = WORKS if name == API_SERVER else end
        outage.ended_s = self._now() if outage.ended_s is None else outage.ended_s

    def _log_ends(self) -> None:
        """Log the end of every outage that nothing has failed for since a moment."""
        for name, outage in list(self._current.items()):
            if outage.ended_s is None or self._now() < outage.failed_s + SETTLED_S:
                continue
            del self._current[name]
            lasted_s = outage.ended_s - outage.since_s
            log.info("%s: %s after %.1f s and %d failed attempts", name, outage.end, lasted_s, outage.failures)

    def _find_cause(self, topic: str, is_unanswered: bool) -> str:
        if is_unanswered:
            self._answered_s.pop(topic, None)
            return API_SERVER
        if API_SERVER not in self._current:
            return topic
        since_s = self._answered_s.setdefault(topic, self._now())
        return API_SERVER if self._now() < since_s + WARM_UP_S else topic
