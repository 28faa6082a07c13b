"""Which changes of the learned state are stored: every node's state has a revision, and so has what is stored of it."""

from collections import Counter


class Revisions:
    """The revisions of the learned states of nodes, counted from 0 in each process."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()
        self._stored: dict[str, int] = {}
        self._changed: set[str] = set()

    def change(self, node: str) -> None:
        """Note that the learned state of a node has changed, or has to be stored again."""
        self._made[node] += 1
        self._changed.add(node)

    def current(self, node: str) -> int:
        """Return the revision of what is known now."""
        return self._made[node]

    def take_changed(self) -> set[str]:
        """Return the nodes whose states have changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def note_stored(self, node: str, revision: int) -> None:
        """Note that a revision is stored, and so are all before it."""
        self._stored[node] = max(revision, self._stored.get(node, 0))

    def is_stored(self, node: str, revision: int) -> bool:
        """Whether a revision is stored."""
        return self._stored.get(node, 0) >= revision
