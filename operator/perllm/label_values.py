"""Values of a metric's label that come from outside, so that their number has to be bounded."""

OTHER = "other"


class LabelValues:
    """The first values that are seen, up to a limit; all later ones are counted as ``other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def bound(self, value: str) -> str:
        """Return the value, or ``other``."""
        if value not in self._known and len(self._known) < self._limit:
            self._known.add(value)
        return value if value in self._known else OTHER
