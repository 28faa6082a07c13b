"""Which nodes satisfy a pod's rules, by the labels and taints that the nodes have now.

The answer is cached per set of rules, of which a cluster has few, and updated when it is read, only for nodes that have
changed. So most decisions just look it up.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from perllm.cluster.node import Node, Taint
from perllm.placement.demand import LabelOperator, NodeRules, Requirement, Toleration
from perllm.policy.arrays import extend

MAX_KNOWN = 1024
"""Sets of rules kept; the least recently used is forgotten first."""

MAX_CHANGES = 10_000
"""Changes of nodes remembered beyond the first of each; after more, all sets of rules are compared again."""

PASSING = "kubernetes.io/"
"""Taints of Kubernetes itself come and go with the state of the node."""

FitArray = NDArray[np.int8]


class Fit(IntEnum):
    """Whether a node can take a pod, or why not."""

    FITS = 0
    SELECTOR = 1
    TAINT = 2
    PASSING_TAINT = 3


@dataclass(slots=True)
class _Known:
    """The fits of one set of rules, up to a number of changes."""

    fits: FitArray
    changes: int = 0


class Fitting:
    """The nodes' labels and taints against the rules of pods."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._rows = 0
        self._changed: list[int] = []
        self._known: OrderedDict[NodeRules, _Known] = OrderedDict()

    def put(self, node: Node, row: int) -> None:
        """Take in a node, or what has changed of it."""
        before = self._nodes.get(row)
        self._nodes[row] = node
        self._rows = max(self._rows, row + 1)
        if before is not None and (before.labels, before.taints) == (node.labels, node.taints):
            return
        self._changed.append(row)
        if len(self._changed) > MAX_CHANGES + len(self._nodes):
            self._known.clear()
            self._changed = list(self._nodes)

    def remove(self, row: int) -> None:
        """Forget a node that left."""
        self._nodes.pop(row, None)

    def fits(self, rules: NodeRules) -> FitArray:
        """Return the `Fit` of every row; of rows without a node it says nothing."""
        known = self._known.get(rules)
        if known is None:
            known = self._known[rules] = _Known(np.zeros(0, dtype=np.int8))
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(rules)
        if known.changes < len(self._changed):
            self._update(known, rules)
        return known.fits

    def _update(self, known: _Known, rules: NodeRules) -> None:
        known.fits = extend(known.fits, self._rows)
        for row in self._nodes.keys() & self._changed[known.changes :]:
            known.fits[row] = find_fit(rules, self._nodes[row])
        known.changes = len(self._changed)


def find_fit(rules: NodeRules, node: Node) -> Fit:
    """Return whether a node can take a pod with these rules, or why not."""
    labels = node.labels
    if any(labels.get(key) != value for key, value in rules.selector):
        return Fit.SELECTOR
    if rules.terms is not None and not any(term and all(_holds(one, node) for one in term) for term in rules.terms):
        return Fit.SELECTOR
    against = find_untolerated(rules, node.taints)
    if not against:
        return Fit.FITS
    return Fit.PASSING_TAINT if all(map(is_passing, against)) else Fit.TAINT


def find_untolerated(rules: NodeRules, taints: Iterable[Taint]) -> list[Taint]:
    """Return the taints that repel a pod with these rules."""
    return [
        taint
        for taint in taints
        if taint.key not in rules.resources
        and not (rules.tolerates_lasting and not is_passing(taint))
        and not any(_tolerates(one, taint) for one in rules.tolerations)
    ]


def is_passing(taint: Taint) -> bool:
    """Whether a taint comes and goes with the state of its node."""
    return PASSING in taint.key


def _holds(requirement: Requirement, node: Node) -> bool:
    own = node.name if requirement.is_about_name else node.labels.get(requirement.key)
    match requirement.operator:
        case LabelOperator.IN:
            return own in requirement.values
        case LabelOperator.NOT_IN:
            return own not in requirement.values
        case LabelOperator.EXISTS:
            return own is not None
        case LabelOperator.DOES_NOT_EXIST:
            return own is None
    return _compares(own, requirement)


def _compares(own: str | None, requirement: Requirement) -> bool:
    (bound,) = requirement.values
    try:
        value = int(own or "")
    except ValueError:
        return False
    return value > int(bound) if requirement.operator is LabelOperator.GREATER else value < int(bound)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    return (
        toleration.key in ("", taint.key)
        and toleration.effect in ("", taint.effect)
        and toleration.value in (None, taint.value)
    )
