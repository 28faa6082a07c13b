"""Nodes that have left, until what is known of their last outcomes is no longer needed in full."""

KEEP_S = 3600.0
"""Much longer than it takes until the last outcomes of a node that has left are learned."""

MAX_ABSENT = 1000
"""Nodes that have left of which all is kept; of each some kilobytes."""


class Absences:
    """Since when nodes are gone, the first to leave first. Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._left_s: dict[str, float] = {}

    def note_left(self, node: str, now_s: float) -> None:
        """Note that a node has left."""
        self._left_s.pop(node, None)
        self._left_s[node] = now_s

    def note_back(self, node: str) -> None:
        """Note that a node of this name is there."""
        self._left_s.pop(node, None)

    def take_long(self, now_s: float) -> list[str]:
        """Return, once, the nodes that left long ago, and the first to leave where there are too many."""
        taken: list[str] = []
        for node, left_s in self._left_s.items():
            if left_s > now_s - KEEP_S and len(self._left_s) - len(taken) <= MAX_ABSENT:
                break
            taken.append(node)
        for node in taken:
            del self._left_s[node]
        return taken
