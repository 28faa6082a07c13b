"""How many foreign requests the model servers of each node process, moment by moment."""

from itertools import pairwise
from math import inf

from perllm.energy.attribution import Window


class ForeignLoad:
    """The foreign requests of all nodes in the last minutes.

    Args:
        window_s: how far back they are kept.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._steps: dict[str, list[tuple[float, float]]] = {}

    def see(self, node: str, requests: float, now_s: float) -> None:
        """Record how many there are from now on."""
        steps = self._steps.setdefault(node, [])
        if requests == (steps[-1][1] if steps else 0.0):
            return
        steps.append((now_s, requests))
        ended = sum(1 for start_s, _ in steps[1:] if start_s < now_s - self._window_s)
        del steps[:ended]

    def forget(self, node: str) -> None:
        """Forget a node that is gone."""
        self._steps.pop(node, None)

    def list_windows(self, node: str, weight: float) -> list[Window]:
        """Return the times with foreign requests as windows, each of which weighs ``weight`` per request."""
        steps = [*self._steps.get(node, []), (inf, 0.0)]
        return [
            Window(f"foreign {start_s}", start_s, end_s, requests * weight)
            for (start_s, requests), (end_s, _) in pairwise(steps)
            if requests > 0
        ]
