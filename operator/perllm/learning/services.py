"""How the answers of a service differ from those of its model: offsets of ln L, partially pooled.

Notation, for the law ln L = w'x + u + s z of one model
    e       ln L - w'x of an answer
    g       a group: a namespace, or a service of it. Its parent is the namespace, or the model
    n       answers of g that were seen, faded ones counted less;  S, Q  the sums of their e and e squared
    K       answers of g that outweigh its parent

    u_g     (K u_parent + S) / (K + n)
    s_g^2   (K s_parent^2 + Q - 2 u_g S + n u_g^2) / (K + n)

So a service that has not been seen is predicted like its namespace, and a namespace like its model (shrinkage with a
fixed ratio of variances; Gelman and Hill 2007, chapter 12).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

MAX_GROUPS = 128
"""Groups of one model that are remembered. Any tenant may name any service, and each system message is one: where there
are more, the namespace with the most forgets those with the oldest answers."""

MAX_STORED = 16
"""Of these are stored with a node: 16 take a quarter of what else there is to store of a model."""

PARENT_WEIGHT = 4.0
MEMORY = 0.995
"""Weight of an answer after the next one of its group."""

MAX_LENGTH = 200
"""Characters of a service; a namespace and a name have fewer."""


class ServiceOffsets:
    """Offsets and spreads by service; a service is named `<namespace>/<name>`, or by its namespace alone."""

    def __init__(self, sums: Mapping[str, tuple[float, float, float]] | None = None) -> None:
        self._sums = dict(sums or {})

    def find(self, service: str, spread: float) -> tuple[float, float]:
        """Return u and s of a service, given the spread around the law of the model."""
        offset = 0.0
        for group in _groups(service):
            weight, total, squares = self._sums.get(group, (0.0, 0.0, 0.0))
            offset = (PARENT_WEIGHT * offset + total) / (PARENT_WEIGHT + weight)
            within = max(squares - 2.0 * offset * total + weight * offset**2, 0.0)
            spread = sqrt((PARENT_WEIGHT * spread**2 + within) / (PARENT_WEIGHT + weight))
        return offset, spread

    def add(self, service: str, error: float, square: float) -> None:
        """Account for an answer of which e and its square are known, or expected."""
        for group in _groups(service):
            weight, total, squares = self._sums.pop(group, (0.0, 0.0, 0.0))
            self._sums[group] = (weight * MEMORY + 1.0, total * MEMORY + error, squares * MEMORY + square)
        while len(self._sums) > MAX_GROUPS:
            del self._sums[self._find_surplus()]

    def export_state(self) -> dict[str, list[float]]:
        """Return the groups with the latest answers as plain numbers, the latest last."""
        latest = list(self._sums.items())[-MAX_STORED:]
        return {group: list(sums) for group, sums in latest}

    def _find_surplus(self) -> str:
        """Return the oldest group of the namespace that has the most, so that none pushes out the others."""
        namespaces = [group.partition("/")[0] for group in self._sums]
        [(largest, _)] = Counter(namespaces).most_common(1)
        return next(group for group, one in zip(self._sums, namespaces, strict=True) if one == largest)


def restore_offsets(state: Mapping[str, Sequence[float]], most: float) -> ServiceOffsets:
    """Return what `export_state` returned.

    Args:
        state: by group.
        most: the largest |e| that an answer may have.

    Raises:
        ValueError: the numbers cannot have been learned.
    """
    sums: dict[str, tuple[float, float, float]] = {}
    for group, numbers in state.items():
        weight, total, squares = numbers
        is_weight = isfinite(weight) and 0.0 < weight <= 1.001 / (1.0 - MEMORY)
        if not (is_weight and total**2 <= 1.001 * weight * squares and squares <= 1.001 * weight * most**2):
            raise ValueError("services have impossible answers")
        sums[group] = (weight, total, squares)
    return ServiceOffsets(sums)


def _groups(service: str) -> tuple[str, ...]:
    """Return the groups that a service is part of, the widest first."""
    if not service:
        return ()
    service = service[:MAX_LENGTH]
    namespace, _, name = service.partition("/")
    return (namespace, service) if name else (namespace,)
