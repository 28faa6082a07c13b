"""Says once that something does not work, and once that it works again, however often it was tried meanwhile.

An API server that is away breaks every watch and write at the same time: that is one outage, told by whoever sees it
first, and it lasts until the last of them works again.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

API_SERVER = "API server"


@dataclass(slots=True)
class _Outage:
    since_s: float
    failures: int = 0


class Outages:
    """What does not work at present, by topic; threads may share it.

    Args:
        now: monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._current: dict[str, _Outage] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._names

    def failed(self, topic: str, words: object, *, is_unanswered: bool = False) -> None:
        """Note a failed try; only the first one of an outage is logged.

        Args:
            topic: what does not work.
            words: why.
            is_unanswered: whether that is since the API server does not answer.
        """
        with self._lock:
            name = API_SERVER if is_unanswered else topic
            if self._names.get(topic, name) != name:
                self.worked(topic)  # what it fails of now is something else
            self._names[topic] = name
            outage = self._current.get(name)
            if outage is None:
                outage = self._current[name] = _Outage(self._now())
                log.warning("%s: %s; tried again until it works", name, words)
            outage.failures += 1

    def worked(self, topic: str) -> None:
        """Note that it works; says so if it did not before, and nothing else fails for the same cause."""
        with self._lock:
            name = self._names.pop(topic, None)
            if name is None or name in self._names.values():
                return
            outage = self._current.pop(name)
            lasted_s = self._now() - outage.since_s
            log.info("%s: works again after %.1f s and %d failed tries", name, lasted_s, outage.failures)
