"""Containment: an unexpected failure about one object is reported and retried, and affects nothing else.

Every unit of work about one object (a task, pod, node, profile, outcome, series) runs inside the guard. An unexpected
failure is logged once with the object's name, counted, and passed to a callback that can show it to the object's owner;
the work is retried after growing pauses. Expected failures are handled where they arise.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from perllm.backoff import Backoff
from perllm.text import clean_line

log = logging.getLogger(__name__)

RETRY = Backoff(first_s=1.0, limit_s=300.0)

MAX_TROUBLES = 1024
"""Objects in trouble that are remembered without a retry to come; names of objects that are gone may be among them."""


@dataclass(slots=True)
class _Trouble:
    failures: int = 0
    fault: str = ""
    retry: asyncio.TimerHandle | None = None


class Guard:
    """Runs work about single objects.

    Args:
        count: called with the kind of the object at every failure.
        rng: jitter of pauses.
        backoff: pauses before retries.
    """

    def __init__(self, count: Callable[[str], None], rng: Random, backoff: Backoff = RETRY) -> None:
        self._count = count
        self._rng = rng
        self._backoff = backoff
        self._troubles: dict[tuple[str, str], _Trouble] = {}

    @property
    def troubled(self) -> list[tuple[str, str]]:
        """Kind and name of every object whose latest work failed."""
        return list(self._troubles)

    def is_troubled(self, kind: str, name: str) -> bool:
        """Whether the latest work about an object failed."""
        return (kind, name) in self._troubles

    def run(
        self,
        kind: str,
        name: str,
        work: Callable[[], None],
        *,
        on_fault: Callable[[str], None] | None = None,
        again: bool = True,
    ) -> bool:
        """Do the work about an object now; return whether it succeeded.

        Args:
            kind: kind of the object, such as "task".
            name: name of the object.
            work: the work; must not block. It replaces earlier work about the object that waits for its retry.
            on_fault: called with the failure in words, so that it can be shown to the object's owner.
            again: whether to retry after a pause.
        """
        known = self._troubles.get((kind, name))
        if known is not None and known.retry is not None:
            known.retry.cancel()
            known.retry = None
        try:
            work()
        except Exception as error:
            pause_s = self.note(kind, name, error)
            if again:
                self._repeat(kind, name, work, on_fault, pause_s)
            if on_fault is not None:
                self._report(kind, name, error, on_fault)
            return False
        self.clear(kind, name)
        return True

    def note(self, kind: str, name: str, error: Exception) -> float:
        """Record a failure about an object; return the pause before the retry in seconds."""
        trouble = self._troubles.setdefault((kind, name), _Trouble())
        trouble.failures += 1
        if len(self._troubles) > MAX_TROUBLES:
            self._forget_oldest((kind, name))
        fault = describe(error)
        self._count(kind)
        if fault != trouble.fault:
            trouble.fault = fault
            log.error(
                "%s %s: unexpected failure, others are not affected: %s", kind, clean_line(name), fault, exc_info=error
            )
        return self._backoff.pause_s(trouble.failures, self._rng)

    def clear(self, kind: str, name: str) -> None:
        """Forget failures about an object: its work succeeded, or it is gone."""
        trouble = self._troubles.pop((kind, name), None)
        if trouble is not None and trouble.retry is not None:
            trouble.retry.cancel()

    def _forget_oldest(self, newest: tuple[str, str]) -> None:
        keys = (key for key, trouble in self._troubles.items() if trouble.retry is None and key != newest)
        oldest = next(keys, None)
        if oldest is not None:
            del self._troubles[oldest]

    def _repeat(
        self, kind: str, name: str, work: Callable[[], None], on_fault: Callable[[str], None] | None, pause_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        trouble = self._troubles[kind, name]
        trouble.retry = loop.call_later(pause_s, lambda: self.run(kind, name, work, on_fault=on_fault))

    def _report(self, kind: str, name: str, error: Exception, on_fault: Callable[[str], None]) -> None:
        try:
            on_fault(describe(error))
        except Exception as second:
            log.exception("the failure of %s %s cannot be reported: %s", kind, clean_line(name), describe(second))


def describe(error: Exception) -> str:
    """Return an error as one line that begins with its type, since many errors have no message."""
    return clean_line(f"{type(error).__name__}: {error}")
