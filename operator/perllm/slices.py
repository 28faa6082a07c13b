"""Long work on the event loop, cut into slices, so that requests are answered in between."""

import asyncio
from collections.abc import Callable

SLICE_S = 0.005
"""How long one piece of work may hold the event loop; a request waits for one slice of each that is under way."""


class Slices:
    """Pauses of one piece of work.

    Args:
        now: clock in seconds; by default that of the event loop.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or asyncio.get_running_loop().time
        self._since_s = self._now()

    async def pause(self) -> None:
        """Let others use the event loop, if the slice is used up; call it after each unit of work."""
        if self._now() - self._since_s >= SLICE_S:
            await asyncio.sleep(0)
            self._since_s = self._now()
