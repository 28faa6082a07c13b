"""Tells once that something does not work, and once that it works again, however often it was tried meanwhile."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Outage:
    since_s: float
    failures: int = 0


class Outages:
    """What does not work at present, by topic.

    Args:
        now: monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._current: dict[str, _Outage] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._current

    def failed(self, topic: str, words: object) -> None:
        """Note a failed try; only the first one of an outage is logged."""
        outage = self._current.get(topic)
        if outage is None:
            outage = self._current[topic] = _Outage(self._now())
            log.warning("%s: %s; tried again until it works", topic, words)
        outage.failures += 1

    def worked(self, topic: str) -> None:
        """Note that it works; says so if it did not before."""
        outage = self._current.pop(topic, None)
        if outage is not None:
            lasted_s = self._now() - outage.since_s
            log.info("%s: works again after %.1f s and %d failed tries", topic, lasted_s, outage.failures)
