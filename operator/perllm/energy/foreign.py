"""How many foreign requests the model servers of each node process, moment by moment."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import inf

from perllm.energy.attribution import Window

INTERVAL_S = 1.0
"""How often they are read; agents report them every two seconds."""


class ForeignLoad:
    """The foreign requests of all nodes in the last minutes.

    Args:
        window_s: how far back they are kept.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._steps: dict[str, list[tuple[float, float]]] = {}

    async def follow(self, read: Callable[[], Mapping[str, float]], unix_now: Callable[[], float]) -> None:
        """Record the foreign requests that ``read`` returns by node, regularly, until cancelled."""
        while True:
            found = read()
            for node, requests in found.items():
                self.see(node, requests, unix_now())
            for node in self._steps.keys() - found.keys():
                del self._steps[node]
            await asyncio.sleep(INTERVAL_S)

    def see(self, node: str, requests: float, now_s: float) -> None:
        """Record how many there are from now on."""
        steps = self._steps.get(node, [])
        if requests == (steps[-1][1] if steps else 0.0):
            return
        self._steps[node] = steps
        steps.append((now_s, requests))
        ended = sum(1 for start_s, _ in steps[1:] if start_s < now_s - self._window_s)
        del steps[:ended]

    def list_windows(self, node: str, weight: float) -> list[Window]:
        """Return the times with foreign requests as windows, each of which weighs ``weight`` per request."""
        steps = [*self._steps.get(node, []), (inf, 0.0)]
        return [
            Window(f"foreign {start_s}", start_s, end_s, requests * weight)
            for (start_s, requests), (end_s, _) in pairwise(steps)
            if requests > 0
        ]
