"""Circuit breakers of the nodes: where no tasks are sent for a while, because the last ones were refused or failed.

    closed --TRIP bad ends in a row, of distinct tasks--> open --pause--> half-open --a good end--> closed
                                                            ^                 |
                                                            +--a bad end------+   with a longer pause

    open        gets no task until a pause of PAUSE has passed, which doubles with every opening in a row
    half-open   gets one task at a time, as a probe; one that leaves without a verdict makes room for the next. Closed
                without a verdict once FORGET_S have passed
    in a row    since the last good end of the kind there, and within WINDOW_S

What is evidence, and for which tasks
    refused     the node did not run the pod. Good end: a pod of any model begins to run. Holds for all models.
    failed      a container ended with an error. Good end: a task of the model succeeds. Holds for the model, and for
                all models once tasks of two or more have failed.
    namespaces  the evidence of one namespace blocks the node for that namespace only. It takes bad ends of two
                namespaces to block it for all. A good end of another namespace's task removes what was evidence for
                all, and leaves what a namespace holds against the node for itself.
So a tenant of one namespace blocks no node for others, regardless of what its tasks do. A tenant of several may do so
for a node that no other tenant uses, until the next probe, which may be a task of any namespace.

Failures may be the tasks' own: they count only where tasks of the kind do better elsewhere (end_history.py), and block
at most half of the nodes for a namespace, so never the last ones. Refusals may block all nodes: then tasks wait for a
probe rather than use up their attempts. A refused task itself is held for a while too (holds.py).

All of it is forgotten on restart: pods are not kept, so the row of ends cannot be read from the cluster, and nodes may
have been repaired meanwhile. A broken node is found again by TRIP pods. That a task avoids the nodes of its own bad
ends follows from its pods and holds across restarts (`PlacementRequest.avoided`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from perllm.api.node_profile import CircuitState
from perllm.backoff import Backoff
from perllm.placement.circuit import (
    ALL_MODELS,
    ALL_NAMESPACES,
    Attempt,
    BadEnd,
    Circuit,
    CircuitChange,
    CircuitKey,
    NodeFault,
)
from perllm.placement.end_history import EndHistory
from perllm.placement.holds import Holds

TRIP = 3
"""Distinct tasks whose bad ends in a row open a circuit."""

WINDOW_S = 900.0
"""Older evidence does not count."""

PAUSE = Backoff(first_s=15.0, limit_s=600.0)

MAX_EVIDENCE = 64
"""Latest bad ends kept per node."""

MAX_CIRCUITS = 32
"""Circuits of one node that are not closed; namespaces and models are names that any tenant may choose."""

FORGET_S = 3600.0
"""A circuit that no task has probed for this time is closed."""


@dataclass(slots=True)
class _Node:
    bad: OrderedDict[tuple[str, NodeFault], BadEnd] = field(default_factory=OrderedDict)
    circuits: dict[CircuitKey, Circuit] = field(default_factory=dict)


class Circuits:
    """The circuits of all nodes. Times are of one monotonic clock, in seconds.

    Args:
        rng: for the jitter of pauses.

    Attributes:
        version: grows whenever a circuit changes its state.
    """

    def __init__(self, rng: Random) -> None:
        self.version = 0
        self._rng = rng
        self._nodes: dict[str, _Node] = {}
        self._tripped: set[str] = set()
        self._history = EndHistory()
        self._holds = Holds(rng)

    def note_refused(self, attempt: Attempt, reason: str, now_s: float) -> list[CircuitChange]:
        """Note that a node did not run a pod."""
        self._holds.add(attempt.task_id, now_s, attempt.retry_after_s)
        return self._note_bad(BadEnd(attempt, NodeFault.REFUSED, reason, now_s), fleet_size=0)

    def note_failed(self, attempt: Attempt, reason: str, now_s: float, fleet_size: int) -> list[CircuitChange]:
        """Note that the container of a pod ended with an error, in a fleet of `fleet_size` nodes."""
        changes = self.note_began(attempt)
        nodes = self._history.add_failure(attempt, now_s)
        if len(nodes) == 1:
            return changes + self._note_bad(BadEnd(attempt, NodeFault.FAILED, reason, now_s), fleet_size)
        for name in nodes:
            changes += self._withdraw(attempt.task_id, name)
        return changes

    def note_began(self, attempt: Attempt) -> list[CircuitChange]:
        """Note that a pod began to run: its node does not refuse everything."""
        return self._note_good(attempt, NodeFault.REFUSED)

    def note_succeeded(self, attempt: Attempt, now_s: float) -> list[CircuitChange]:
        """Note that a task succeeded."""
        self._history.add_success(attempt, now_s)
        return self.note_began(attempt) + self._note_good(attempt, NodeFault.FAILED)

    def note_placed(self, node: str, task_id: str, namespace: str, model: str) -> None:
        """Note that a task is about to be sent to a node; where it is half-open that task is the probe."""
        for circuit in self._circuits(node):
            if circuit.state is CircuitState.HALF_OPEN and circuit.applies_to(namespace, model):
                circuit.probe = task_id

    def tend(self, now_s: float) -> list[CircuitChange]:
        """Make circuits half-open whose pause has passed, and close those that have not been probed for long."""
        changes = []
        for name in list(self._tripped):
            for circuit in self._circuits(name):
                if circuit.state is CircuitState.OPEN and circuit.until_s <= now_s:
                    circuit.state, circuit.probe = CircuitState.HALF_OPEN, None
                    self.version += 1
                    changes.append(CircuitChange(name, CircuitState.HALF_OPEN, circuit))
            changes += self._close(name, lambda one: one.until_s <= now_s - FORGET_S)
        return changes

    def forget_node(self, node: str) -> None:
        """Forget a node that is gone, or was replaced by another of its name."""
        self.version += bool(self._circuits(node))
        self._nodes.pop(node, None)
        self._tripped.discard(node)

    def forget_task(self, task_id: str) -> None:
        """Forget the history of a task, but not the evidence that it gave about nodes."""
        self._history.forget(task_id)
        self._holds.forget(task_id)

    def blocking(
        self, task_id: str, namespace: str, model: str, is_in_flight: Callable[[str], bool]
    ) -> dict[str, Circuit]:
        """Return the nodes that a task must not be sent to now, each with the circuit that blocks it."""
        found = {}
        for name in self._tripped:
            for circuit in self._circuits(name):
                if circuit.applies_to(namespace, model) and not _admits(circuit, task_id, is_in_flight):
                    found[name] = circuit
        return found

    def is_held(self, task_id: str, now_s: float, *, can_go_elsewhere: bool) -> bool:
        """Whether a refused task has to wait before it is tried again."""
        return self._holds.is_held(task_id, now_s, can_go_elsewhere=can_go_elsewhere)

    def of(self, node: str) -> list[Circuit]:
        """Return the circuits of a node that are not closed, those that block the most tasks first."""
        return sorted(self._circuits(node), key=lambda one: (one.namespace != ALL_NAMESPACES, one.model != ALL_MODELS))

    def _circuits(self, node: str) -> Iterable[Circuit]:
        known = self._nodes.get(node)
        return known.circuits.values() if known else ()

    def _note_bad(self, bad: BadEnd, fleet_size: int) -> list[CircuitChange]:
        name = bad.attempt.node
        node = self._nodes.setdefault(name, _Node())
        node.bad[bad.attempt.task_id, bad.kind] = bad
        node.bad.move_to_end((bad.attempt.task_id, bad.kind))
        if len(node.bad) > MAX_EVIDENCE:
            node.bad.popitem(last=False)
        changes = []
        for key in bad.may_open():
            circuit = node.circuits.get(key)
            if circuit is not None:
                self._reopen(circuit, bad)
            elif len(node.circuits) < MAX_CIRCUITS and self._trips(name, key, bad.at_s, fleet_size):
                changes.append(self._open(node, key, bad))
        return changes

    def _open(self, node: _Node, key: CircuitKey, bad: BadEnd) -> CircuitChange:
        circuit = node.circuits[key] = Circuit(
            kind=key.kind,
            namespace=key.namespace,
            model=key.model,
            reason=bad.reason,
            since_s=bad.at_s,
            until_s=bad.at_s + PAUSE.pause_s(1, self._rng),
        )
        self._tripped.add(bad.attempt.node)
        self.version += 1
        return CircuitChange(bad.attempt.node, CircuitState.OPEN, circuit)

    def _reopen(self, circuit: Circuit, bad: BadEnd) -> None:
        circuit.reason = bad.reason
        if circuit.state is CircuitState.HALF_OPEN:
            self.version += 1
            circuit.openings += 1
            circuit.state, circuit.probe = CircuitState.OPEN, None
            circuit.until_s = bad.at_s + PAUSE.pause_s(circuit.openings, self._rng)

    def _trips(self, name: str, key: CircuitKey, now_s: float, fleet_size: int) -> bool:
        """Whether the bad ends of a node open its circuit of this key."""
        bad = [one for one in self._nodes[name].bad.values() if one.at_s >= now_s - WINDOW_S and one.counts_for(key)]
        namespaces = {one.attempt.namespace for one in bad}
        if len(bad) < TRIP or (key.namespace == ALL_NAMESPACES and len(namespaces) < 2):
            return False
        if key.kind is NodeFault.REFUSED:
            return True
        if key.model == ALL_MODELS and len({one.attempt.model for one in bad}) < 2:
            return False
        return self._leaves_half(name, key.namespace, fleet_size) and self._history.is_better_elsewhere(name, bad)

    def _leaves_half(self, name: str, namespace: str, fleet_size: int) -> bool:
        """Whether failures would still leave a namespace half of the nodes; for all: leave it to each."""
        blocked = {name}
        for other in self._tripped:
            for circuit in self._circuits(other):
                is_its = circuit.namespace in (ALL_NAMESPACES, namespace) or namespace == ALL_NAMESPACES
                if circuit.kind is NodeFault.FAILED and is_its:
                    blocked.add(other)
        return 2 * len(blocked) <= fleet_size

    def _note_good(self, attempt: Attempt, kind: NodeFault) -> list[CircuitChange]:
        node = self._nodes.get(attempt.node)
        if node is None:
            return []
        for bad_key, bad in list(node.bad.items()):
            if bad.kind is not kind or (kind is NodeFault.FAILED and bad.attempt.model != attempt.model):
                continue
            if bad.attempt.namespace == attempt.namespace:
                del node.bad[bad_key]
            bad.is_shared = False
        return self._close(
            attempt.node, lambda one: one.kind is kind and one.applies_to(attempt.namespace, attempt.model)
        )

    def _withdraw(self, task_id: str, name: str) -> list[CircuitChange]:
        """Undo a failure that followed its task, and close the circuits that then rest on too few others."""
        node = self._nodes.get(name)
        if node is None:
            return []
        node.bad.pop((task_id, NodeFault.FAILED), None)
        for circuit in node.circuits.values():
            if circuit.probe == task_id:
                circuit.probe = None

        def is_unfounded(circuit: Circuit) -> bool:
            evidence = sum(one.counts_for(circuit.key) for one in node.bad.values())
            return circuit.kind is NodeFault.FAILED and evidence < TRIP

        return self._close(name, is_unfounded)

    def _close(self, name: str, is_to_close: Callable[[Circuit], bool]) -> list[CircuitChange]:
        node = self._nodes[name]
        closing = {key: circuit for key, circuit in node.circuits.items() if is_to_close(circuit)}
        self.version += len(closing)
        for key in closing:
            del node.circuits[key]
        if not node.circuits:
            self._tripped.discard(name)
        if not node.circuits and not node.bad:
            del self._nodes[name]
        return [CircuitChange(name, CircuitState.CLOSED, circuit) for circuit in closing.values()]


def _admits(circuit: Circuit, task_id: str, is_in_flight: Callable[[str], bool]) -> bool:
    """Whether a half-open circuit lets a task through as its probe."""
    if circuit.state is CircuitState.OPEN:
        return False
    return circuit.probe in (None, task_id) or not is_in_flight(circuit.probe)
