"""When streams are given the tokens that have been generated since."""

import asyncio
from collections.abc import Callable

CHUNKS_PER_S = 20
FLEET_CHUNKS_PER_S = 100


class Pacer:
    """Refreshes all streams of a fleet at regular intervals, in wall time.

    A stream is refreshed 20 times a second, and more rarely where that would be more than 100 chunks a second in all,
    so that streams do not take the time of the process from the simulation.
    """

    def __init__(self) -> None:
        self._refreshes: dict[str, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: str, refresh: Callable[[], None]) -> None:
        """Call `refresh` regularly until `discard` is called with the same key."""
        self._refreshes[key] = refresh
        if self._timer is None:
            self._plan()

    def discard(self, key: str) -> None:
        """Refresh a stream no more."""
        self._refreshes.pop(key, None)

    def _tick(self) -> None:
        for key, refresh in list(self._refreshes.items()):
            # A refresh advances the simulation, which may end other streams.
            if key in self._refreshes:
                refresh()
        self._timer = None
        if self._refreshes:
            self._plan()

    def _plan(self) -> None:
        interval_s = max(1.0 / CHUNKS_PER_S, len(self._refreshes) / FLEET_CHUNKS_PER_S)
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._tick)
