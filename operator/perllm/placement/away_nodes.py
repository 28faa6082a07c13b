"""Nodes that do not answer, as another scheduler meets them: what its tasks do there is not known, until they are lost.

A node that answers again in time has done its work meanwhile. Otherwise Kubernetes gives up its pods.
"""

from math import inf

EVICTION_S = 300.0
"""How long Kubernetes leaves pods on a node that does not answer, unless they ask for something else."""

LOOK_S = 5.0
"""How often a task is looked at whose end is not known."""


class AwayNodes:
    """The nodes that do not answer; times by the monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._since_s

    def note(self, node: str, now_s: float, *, answers: bool) -> None:
        """Note whether a node answers."""
        if answers:
            self.forget(node)
        else:
            self._since_s.setdefault(node, now_s)

    def forget(self, node: str) -> None:
        """Forget a node that has left."""
        self._since_s.pop(node, None)

    def take_lost(self, now_s: float) -> list[str]:
        """Return the nodes whose pods Kubernetes has given up by now, each once."""
        lost = [node for node, since_s in self._since_s.items() if now_s >= since_s + EVICTION_S]
        self._since_s.update(dict.fromkeys(lost, inf))
        return lost
