"""A circuit of a node, and the ends of pods that open and close it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from perllm.api.node_profile import CircuitState

ALL_NAMESPACES = ""
ALL_MODELS = ""


class NodeFault(StrEnum):
    """What went wrong on a node."""

    REFUSED = "refused"
    FAILED = "failed"


class CircuitKey(NamedTuple):
    """What a circuit is about: a kind of fault, and the tasks that it blocks, of all namespaces or models if empty."""

    kind: NodeFault
    namespace: str
    model: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A pod of a task on a node, or a request.

    Attributes:
        task_id: uid of the task.
        namespace: of the task.
        model: of the task.
        node: where it was placed.
        retry_after_s: how long the node asked to wait, if it did not accept it.
    """

    task_id: str
    namespace: str
    model: str
    node: str
    retry_after_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Circuit:
    """A circuit that is not closed.

    Attributes:
        kind: what opened it.
        namespace: whose tasks it blocks; all when empty.
        model: tasks of which model; all when empty.
        reason: of the last bad end, in words.
        since_s: when it left the closed state.
        until_s: when it becomes half-open.
        openings: how often it opened in a row.
        state: open or half-open.
        probe: the task that tries the node while it is half-open.
    """

    kind: NodeFault
    namespace: str
    model: str
    reason: str
    since_s: float
    until_s: float
    openings: int = 1
    state: CircuitState = CircuitState.OPEN
    probe: str | None = None

    @property
    def key(self) -> CircuitKey:
        """What it is about."""
        return CircuitKey(self.kind, self.namespace, self.model)

    def applies_to(self, namespace: str, model: str) -> bool:
        """Whether it is about tasks of this namespace and model."""
        return self.namespace in (ALL_NAMESPACES, namespace) and self.model in (ALL_MODELS, model)


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A circuit of a node that opened for the first time in a row, became half-open, or closed."""

    node: str
    state: CircuitState
    circuit: Circuit


@dataclass(slots=True)
class BadEnd:
    """A pod that its node refused, or whose container failed; `is_shared` while it counts for other namespaces too."""

    attempt: Attempt
    kind: NodeFault
    reason: str
    at_s: float
    is_shared: bool = True

    def may_open(self) -> Iterator[CircuitKey]:
        """Yield the circuits that it may open."""
        models = (ALL_MODELS,) if self.kind is NodeFault.REFUSED else (ALL_MODELS, self.attempt.model)
        for namespace in (ALL_NAMESPACES, self.attempt.namespace):
            for model in models:
                yield CircuitKey(self.kind, namespace, model)

    def counts_for(self, key: CircuitKey) -> bool:
        """Whether it is evidence for a circuit."""
        is_its = self.is_shared if key.namespace == ALL_NAMESPACES else self.attempt.namespace == key.namespace
        return self.kind is key.kind and is_its and key.model in (ALL_MODELS, self.attempt.model)
