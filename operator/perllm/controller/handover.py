"""Hands work from one thread over to the event loop of another, in order, and in slices."""

import asyncio
from collections import deque
from collections.abc import Callable

from perllm.slices import SLICE_S

MAX_BACKLOG = 1000
"""Above this number the producer waits, so that work does not pile up in memory."""

POLL_S = 0.01


class Handover:
    """Work that one thread submits and an event loop does.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._works: deque[Callable[[], None]] = deque()
        self._is_planned = False

    def put(self, work: Callable[[], None]) -> None:
        """Queue work for the loop, in order; it is dropped if the loop is closed by now."""
        self._works.append(work)
        if not self._is_planned and not self._loop.is_closed():
            self._is_planned = True
            self._loop.call_soon_threadsafe(self._do_some)

    async def wait_for_room(self) -> None:
        """Wait, in the producer's own loop, until little is left to do."""
        while len(self._works) > MAX_BACKLOG and not self._loop.is_closed():  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(POLL_S)

    def _do_some(self) -> None:
        end_s = self._loop.time() + SLICE_S
        try:
            while self._works:
                self._works.popleft()()
                if self._loop.time() >= end_s:
                    break
        finally:
            # In this order: what is put in between is either seen here, or plans its own turn.
            self._is_planned = False
            if self._works:
                self._is_planned = True
                self._loop.call_soon(self._do_some)
