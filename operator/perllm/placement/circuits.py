"""Circuit breakers of the nodes: where no tasks are sent for a while, since the last were refused or failed there.

    closed --TRIP bad ends in a row, of distinct tasks--> open --pause--> half-open --a good end--> closed
                                                            ^                 |
                                                            +--a bad end------+   with a longer pause

    open        gets no task until a pause of PAUSE has passed, which doubles with every opening in a row
    half-open   gets one task at a time, as a probe; one that leaves without a verdict makes room for the next. Closed
                without a verdict once FORGET_S have passed
    in a row    since the last good end of the kind there, and within WINDOW_S

What is evidence, and for whom
    refused     the node did not run the pod. Good ends: a pod of whatever model begins to run. Holds for all models.
    failed      a container ended with an error. Good ends: a task of the model succeeds. Holds for the model, and for
                all models once tasks of two or more have failed.
    whose       the evidence of one namespace closes the node to that namespace only. It takes bad ends of two
                namespaces to close it to all. A good end of another namespace's task takes what was evidence for all,
                and leaves what a namespace holds against the node for itself.
So a tenant of one namespace closes no node to others, whatever its tasks are made to do. One of several may do so to
a node that nobody else uses, until the next probe, which anybody's task may be.

A failure is the task's own, rather than the node's, unless the comparison says otherwise:
    * a task that failed on two nodes is evidence against neither;
    * of the tasks of the same namespaces and the same model that ended elsewhere since the first of the failures, more
      have to have succeeded than failed: a broken image opens nothing, since nothing succeeds elsewhere;
    * failures keep at most half of the nodes from a namespace, so never the last ones. Refusals may keep all nodes:
      then tasks wait for a probe rather than use up their attempts.

Besides, a refused task itself holds back: after its first refusal it goes elsewhere at once, after further ones, or
where there is no elsewhere, it waits first, longer each time (`HOLD`).

All of it is forgotten on restart: pods are not kept, so the row of ends could not be told again from the cluster, and
nodes may have been repaired meanwhile. A broken node is found out again by TRIP pods. That a task avoids the nodes of
its own bad ends follows from its pods and holds across restarts (`Request.avoided`).
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import TypeVar

from perllm.api.node_profile import CircuitState
from perllm.backoff import Backoff

TRIP = 3
"""Distinct tasks whose bad ends in a row open a circuit."""

WINDOW_S = 900.0
"""Older evidence does not count."""

PAUSE = Backoff(first_s=15.0, limit_s=600.0)
HOLD = Backoff(first_s=1.0, limit_s=60.0)

MAX_EVIDENCE = 64
"""Bad ends kept per node, the latest."""

MAX_ENDS = 64
"""Ends kept per namespace, to compare nodes by."""

MAX_REMEMBERED = 4096
"""Namespaces, and tasks with bad ends, that are remembered."""

MAX_CIRCUITS = 32
"""Circuits of one node that are not closed; namespaces and models are names that anybody may think of."""

FORGET_S = 3600.0
"""A circuit that nobody has probed for so long is closed."""

ALL_NAMESPACES = ""
ALL_MODELS = ""

_T = TypeVar("_T")


class NodeFault(StrEnum):
    """What went wrong."""

    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A pod of a task on a node."""

    task_id: str
    namespace: str
    model: str
    node: str


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A circuit of a node that opened for the first time in a row, became half-open, or closed."""

    node: str
    state: CircuitState
    circuit: "Circuit"


@dataclass(slots=True)
class Circuit:
    """A circuit that is not closed.

    Attributes:
        kind: what opened it.
        namespace: whose tasks it keeps off; all when empty.
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

    def applies_to(self, namespace: str, model: str) -> bool:
        """Whether it is about tasks of this namespace and model."""
        return self.namespace in (ALL_NAMESPACES, namespace) and self.model in (ALL_MODELS, model)


@dataclass(slots=True)
class _Bad:
    """A bad end; `is_shared` while it counts for other namespaces as well."""

    attempt: Attempt
    kind: NodeFault
    reason: str
    at_s: float
    is_shared: bool = True


@dataclass(frozen=True, slots=True)
class _End:
    """A container's end, to compare nodes by."""

    node: str
    model: str
    is_good: bool
    at_s: float


_Key = tuple[NodeFault, str, str]
"""Kind, namespace, model."""


@dataclass(slots=True)
class _Node:
    bad: OrderedDict[tuple[str, NodeFault], _Bad] = field(default_factory=OrderedDict)
    circuits: dict[_Key, Circuit] = field(default_factory=dict)


@dataclass(slots=True)
class _Hold:
    refusals: int = 0
    until_s: float = 0.0


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
        self._ends: OrderedDict[str, deque[_End]] = OrderedDict()
        self._failed_on: OrderedDict[str, set[str]] = OrderedDict()
        self._holds: OrderedDict[str, _Hold] = OrderedDict()

    def note_refused(self, attempt: Attempt, reason: str, now_s: float) -> list[CircuitChange]:
        """Take note that a node did not run a pod."""
        hold = _remember(self._holds, attempt.task_id, _Hold)
        hold.refusals += 1
        hold.until_s = now_s + HOLD.pause_s(hold.refusals, self._rng)
        return self._note_bad(_Bad(attempt, NodeFault.REFUSED, reason, now_s), fleet_size=0)

    def note_failed(self, attempt: Attempt, reason: str, now_s: float, fleet_size: int) -> list[CircuitChange]:
        """Take note that the container of a pod ended with an error, in a fleet of so many nodes."""
        changes = self.note_began(attempt)
        self._note_end(attempt, now_s, is_good=False)
        nodes = _remember(self._failed_on, attempt.task_id, set)
        nodes.add(attempt.node)
        if len(nodes) == 1:
            return changes + self._note_bad(_Bad(attempt, NodeFault.FAILED, reason, now_s), fleet_size)
        for name in nodes:
            changes += self._withdraw(attempt.task_id, name)
        return changes

    def note_began(self, attempt: Attempt) -> list[CircuitChange]:
        """Take note that a pod began to run: its node does not refuse everything."""
        return self._note_good(attempt, NodeFault.REFUSED)

    def note_succeeded(self, attempt: Attempt, now_s: float) -> list[CircuitChange]:
        """Take note that a task succeeded."""
        self._note_end(attempt, now_s, is_good=True)
        return self.note_began(attempt) + self._note_good(attempt, NodeFault.FAILED)

    def note_placed(self, node: str, task_id: str, namespace: str, model: str) -> None:
        """Take note that a task is about to be sent to a node; where it is half-open that task is the probe."""
        for circuit in self._circuits(node):
            if circuit.state is CircuitState.HALF_OPEN and circuit.applies_to(namespace, model):
                circuit.probe = task_id

    def tend(self, now_s: float) -> list[CircuitChange]:
        """Make circuits half-open whose pause has passed, and close those that nobody has probed for long."""
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
        """Forget what a task went through itself; what it told of nodes stays."""
        self._failed_on.pop(task_id, None)
        self._holds.pop(task_id, None)

    def blocking(
        self, task_id: str, namespace: str, model: str, is_in_flight: Callable[[str], bool]
    ) -> dict[str, Circuit]:
        """Return the nodes that a task must not be sent to now, and the circuit of each that says so."""
        found = {}
        for name in self._tripped:
            for circuit in self._circuits(name):
                if circuit.applies_to(namespace, model) and not _admits(circuit, task_id, is_in_flight):
                    found[name] = circuit
        return found

    def is_held(self, task_id: str, now_s: float, *, can_go_elsewhere: bool) -> bool:
        """Whether a refused task has to wait before it is tried again."""
        hold = self._holds.get(task_id)
        if hold is None or (hold.refusals == 1 and can_go_elsewhere):
            return False
        return now_s < hold.until_s

    def of(self, node: str) -> list[Circuit]:
        """Return the circuits of a node that are not closed, those that keep off most first."""
        return sorted(self._circuits(node), key=lambda one: (one.namespace != ALL_NAMESPACES, one.model != ALL_MODELS))

    def _circuits(self, node: str) -> Iterable[Circuit]:
        known = self._nodes.get(node)
        return known.circuits.values() if known else ()

    def _note_bad(self, bad: _Bad, fleet_size: int) -> list[CircuitChange]:
        name = bad.attempt.node
        node = self._nodes.setdefault(name, _Node())
        node.bad[bad.attempt.task_id, bad.kind] = bad
        node.bad.move_to_end((bad.attempt.task_id, bad.kind))
        if len(node.bad) > MAX_EVIDENCE:
            node.bad.popitem(last=False)
        changes = []
        for key in _keys(bad):
            circuit = node.circuits.get(key)
            if circuit is not None:
                self._reopen(circuit, bad)
            elif len(node.circuits) < MAX_CIRCUITS and self._trips(name, key, bad.at_s, fleet_size):
                pause_s = PAUSE.pause_s(1, self._rng)
                circuit = Circuit(*key, reason=bad.reason, since_s=bad.at_s, until_s=bad.at_s + pause_s)
                node.circuits[key] = circuit
                self._tripped.add(name)
                self.version += 1
                changes.append(CircuitChange(name, CircuitState.OPEN, circuit))
        return changes

    def _reopen(self, circuit: Circuit, bad: _Bad) -> None:
        circuit.reason = bad.reason
        if circuit.state is CircuitState.HALF_OPEN:
            self.version += 1
            circuit.openings += 1
            circuit.state, circuit.probe = CircuitState.OPEN, None
            circuit.until_s = bad.at_s + PAUSE.pause_s(circuit.openings, self._rng)

    def _trips(self, name: str, key: _Key, now_s: float, fleet_size: int) -> bool:
        """Whether the bad ends of a node open its circuit of this key."""
        kind, namespace, model = key
        bad = [one for one in self._nodes[name].bad.values() if one.at_s >= now_s - WINDOW_S and _counts(one, key)]
        namespaces = {one.attempt.namespace for one in bad}
        if len(bad) < TRIP or (namespace == ALL_NAMESPACES and len(namespaces) < 2):
            return False
        if kind is NodeFault.REFUSED:
            return True
        if model == ALL_MODELS and len({one.attempt.model for one in bad}) < 2:
            return False
        return self._is_bounded(name, namespace, fleet_size) and self._is_better_elsewhere(name, bad)

    def _is_bounded(self, name: str, namespace: str, fleet_size: int) -> bool:
        """Whether failures would still leave a namespace half of the nodes; for all: leave it to each."""
        kept = {name}
        for other in self._tripped:
            for circuit in self._circuits(other):
                is_its = circuit.namespace in (ALL_NAMESPACES, namespace) or namespace == ALL_NAMESPACES
                if circuit.kind is NodeFault.FAILED and is_its:
                    kept.add(other)
        return 2 * len(kept) <= fleet_size

    def _is_better_elsewhere(self, name: str, bad: list[_Bad]) -> bool:
        """Whether more tasks of the kind that failed on a node succeeded than failed on others since it began."""
        first_s, models = min(one.at_s for one in bad), {one.attempt.model for one in bad}
        good = total = 0
        for namespace in {one.attempt.namespace for one in bad}:
            for end in self._ends.get(namespace, ()):
                if end.node != name and end.model in models and end.at_s >= first_s:
                    good, total = good + end.is_good, total + 1
        return 2 * good > total

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
        """Take back a failure that followed its task, and close what rests on too few others then."""
        node = self._nodes.get(name)
        if node is None:
            return []
        node.bad.pop((task_id, NodeFault.FAILED), None)
        for circuit in node.circuits.values():
            if circuit.probe == task_id:
                circuit.probe = None

        def is_unfounded(circuit: Circuit) -> bool:
            key = (circuit.kind, circuit.namespace, circuit.model)
            return circuit.kind is NodeFault.FAILED and sum(_counts(one, key) for one in node.bad.values()) < TRIP

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

    def _note_end(self, attempt: Attempt, now_s: float, *, is_good: bool) -> None:
        ends = _remember(self._ends, attempt.namespace, lambda: deque(maxlen=MAX_ENDS))
        ends.append(_End(attempt.node, attempt.model, is_good, now_s))


def _keys(bad: _Bad) -> Iterator[_Key]:
    """Yield the circuits that a bad end may open."""
    models = (ALL_MODELS,) if bad.kind is NodeFault.REFUSED else (ALL_MODELS, bad.attempt.model)
    for namespace in (ALL_NAMESPACES, bad.attempt.namespace):
        for model in models:
            yield bad.kind, namespace, model


def _counts(bad: _Bad, key: _Key) -> bool:
    kind, namespace, model = key
    is_its = bad.is_shared if namespace == ALL_NAMESPACES else bad.attempt.namespace == namespace
    return bad.kind is kind and is_its and model in (ALL_MODELS, bad.attempt.model)


def _admits(circuit: Circuit, task_id: str, is_in_flight: Callable[[str], bool]) -> bool:
    """Whether a half-open circuit lets a task through as its probe."""
    if circuit.state is CircuitState.OPEN:
        return False
    return circuit.probe in (None, task_id) or not is_in_flight(circuit.probe)


def _remember(memory: OrderedDict[str, _T], key: str, make: Callable[[], _T]) -> _T:
    """Return what is remembered under a key, made if it is not, as the most recent; the least recent is forgotten."""
    known = memory.pop(key, None)
    memory[key] = known = make() if known is None else known
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
    return known
