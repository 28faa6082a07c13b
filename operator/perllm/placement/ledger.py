"""What is in flight: every task that a node has been chosen for and whose end is not yet known.

kube-scheduler does not report to an extender that a placement failed after the decision, so a reservation expires
unless the pod is seen bound.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from perllm.learning.features import MAX_READING
from perllm.placement.batch_table import BatchTable, Division
from perllm.placement.flight import Flight, Residence
from perllm.placement.flight_table import FlightTables
from perllm.placement.node_queues import NodeQueues
from perllm.placement.node_table import NodeTable
from perllm.placement.writers import Writers
from perllm.policy.arrays import Index, end_of, extend
from perllm.policy.problem import FloatArray, IntArray

RESERVATION_S = 10.0
"""kube-scheduler gives a bind call less; after that the decision was not carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoads:
    """What is in flight on each of n nodes, and waits for it; every array has shape (n,).

    Attributes:
        running: tasks in flight.
        running_model: those of one model.
        taken: slots that tasks in flight take of a resource.
        demand_bps: uplink promised to tasks in flight.
        backlog_tokens: prompt tokens that wait to be read by the server of the model.
        link_bits: bits that wait to be fetched.
        reading_share: share of the time in which that has read prompts lately.
        occupancy: tasks of the model that are to be expected to write.
        work_s: work given to the node beyond what it can do by now, or awaited; GPU seconds per GPU.
        usual_work_s: GPU seconds that a task takes there in the mean, of whichever model; 0 before the first one.
        waiting: slots that are waited for.
        stall_harm: misses per second by which the node is held up.
        slow_harm: misses per unit by which it gets slower.
        harmed_s: how long the latter matters.
        division: what the model has of the nodes, next to others.
    """

    running: FloatArray
    running_model: FloatArray
    taken: FloatArray
    demand_bps: FloatArray
    backlog_tokens: FloatArray
    link_bits: FloatArray
    reading_share: FloatArray
    occupancy: FloatArray
    work_s: FloatArray
    usual_work_s: FloatArray
    waiting: FloatArray
    stall_harm: FloatArray
    slow_harm: FloatArray
    harmed_s: FloatArray
    division: Division


@dataclass(frozen=True, slots=True)
class _Begin:
    """The sums of a node when a task was placed there."""

    at_s: float
    prompts: float
    inputs: float
    backlog: float
    batch: str


class Ledger:
    """Tasks in flight by node. Times are of one monotonic clock, in seconds.

    Attributes:
        placed: how many tasks were ever put in flight.
    """

    def __init__(self) -> None:
        self.placed = 0
        self._flights: dict[str, Flight] = {}
        self._begun: dict[str, _Begin] = {}
        self._expiry: dict[str, float] = {}
        self._queues = NodeQueues()
        self._nodes = NodeTable()
        self._tables = FlightTables()
        self._writers = Writers()
        self._batches = BatchTable()
        self._batch_names: dict[str, dict[int, str]] = defaultdict(dict)
        self._by_model: dict[str, FloatArray] = {}
        self._taken_of: dict[str, FloatArray] = {}
        self._flights_of: dict[str, int] = defaultdict(int)

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._flights

    @property
    def models(self) -> Collection[str]:
        """The models of all tasks in flight."""
        return self._by_model.keys()

    def reserve(self, flight: Flight, now_s: float) -> None:
        """Note that a node was chosen; forgotten after `RESERVATION_S` unless confirmed."""
        self._add(flight, now_s)
        self._expiry[flight.task_id] = now_s + RESERVATION_S

    def renew(self, task_id: str, now_s: float) -> None:
        """Have the time of a reservation begin again; a confirmed task has none."""
        if task_id in self._expiry:
            self._expiry[task_id] = now_s + RESERVATION_S

    def confirm(self, flight: Flight, now_s: float) -> None:
        """Note that the task is bound to a node, reserved or not, perhaps for other slots."""
        known = self._flights.get(flight.task_id)
        if known is None or (known.row, known.slots, known.resource) != (flight.row, flight.slots, flight.resource):
            self._add(flight, now_s)
        self._expiry.pop(flight.task_id, None)

    def cancel(self, task_id: str, now_s: float) -> Flight | None:
        """Forget a reservation and return it; None if there is none, since a confirmed task remains."""
        return self._undo(task_id, now_s) if task_id in self._expiry else None

    def release(self, task_id: str, now_s: float) -> Residence | None:
        """Forget a task and return what it met on its node; None if it was unknown."""
        flight = self._flights.get(task_id)
        if flight is None:
            return None
        begin, nodes = self._begun[task_id], self._nodes
        nodes.advance(flight.row, now_s)
        residence = self._find_residence(flight, begin, now_s)
        nodes.give_back(flight, residence, now_s)
        nodes.give_back_queued(
            flight,
            begin.at_s,
            later_tokens=float(nodes.prompts[flight.row]) - begin.prompts,
            later_bits=float(nodes.inputs[flight.row]) - begin.inputs,
        )
        self._remove(flight, now_s)
        return residence

    def find_expired(self, now_s: float) -> list[str]:
        """Return the tasks of reservations that were not confirmed in time."""
        return [task_id for task_id, expiry_s in self._expiry.items() if expiry_s <= now_s]

    def count(self, row: int, model: str) -> float:
        """Return how many tasks of a model are in flight on a node."""
        return float(self._counts(model)[row]) if model in self._by_model else 0.0

    def wait(self, task_id: str, row: int, work_s: float, *, slots: float = 1.0, namespace: str = "") -> None:
        """Note that a task waits for slots of a node, and which GPU seconds it would take of each of its GPUs."""
        self._queues.put(task_id, row, slots=slots, work_s=work_s, namespace=namespace)

    def stop_waiting(self, task_id: str) -> None:
        """Forget that a task waits."""
        self._queues.remove(task_id)

    def put_foreign(self, row: int, tasks: float, now_s: float) -> None:
        """Note how many requests a node processes that no agent made: they are part of its occupancy.

        Pods of tasks make requests too, which are counted already.
        """
        nodes = self._nodes
        nodes.cover(row + 1)
        tasks = max(tasks - float(nodes.taken[row]), 0.0)
        change = tasks - nodes.foreign[row]
        if change:
            nodes.advance(row, now_s)
            nodes.running[row] += change
            self._writers.add_foreign(row, change, now_s)
            nodes.foreign[row] = tasks

    def put_batches(self, row: int, batches: Collection[Collection[str]]) -> None:
        """Note which models of a node are written in one batch; of tasks in flight that is not changed."""
        named = {model: min(models) for models in batches for model in models}
        for model in [model for model, names in self._batch_names.items() if row in names and model not in named]:
            del self._batch_names[model][row]
            if not self._batch_names[model]:
                del self._batch_names[model]
        for model, name in named.items():
            self._batch_names[model][row] = name

    def find_foreign(self, row: int) -> float:
        """Return how many foreign requests a node processes."""
        return float(self._nodes.foreign[row]) if row < len(self._nodes.foreign) else 0.0

    def put_bandwidth(self, rows: IntArray, bandwidth_bps: FloatArray) -> None:
        """Note how fast the nodes' links drain."""
        self._cover(rows)
        self._nodes.link_bps[rows] = bandwidth_bps

    def note_usual(self, rows: IntArray, work_s: FloatArray, usual_s: FloatArray) -> None:
        """Note the GPU seconds that a task which is placed would take on each of the nodes that it may run on.

        Args:
            rows: the nodes.
            work_s: what the task would take there.
            usual_s: what it was compared with.
        """
        self._cover(rows)
        self._nodes.note_usual(rows, work_s, usual_s)

    def forget_usual(self, row: int) -> None:
        """Forget what tasks take on a node in the mean: it has other GPUs now."""
        self._nodes.cover(row + 1)
        self._nodes.usual[row] = 0.0

    @property
    def groups(self) -> int:
        """Number of groups of nodes whose tasks are examined together for how tight they are."""
        return len(self._tables)

    def refresh(self, now_s: float, shapes: FloatArray, turns: int | None = None) -> None:
        """Recompute how tight the tasks in flight are; takes time linear in their number.

        Args:
            now_s: now.
            shapes: of the answers' lengths, by kind, as the learner counts them.
            turns: on how many groups of nodes, starting with those examined the longest ago; None for all.
        """
        self._tables.refresh(self._nodes, now_s, shapes, self.groups if turns is None else turns)

    def loads(
        self, rows: Index, now_s: float, *, model: str = "", namespace: str = "", resource: str = ""
    ) -> NodeLoads:
        """Return what is in flight on each node, to be read before anything changes.

        Harms are as of the last `refresh`. Of the waiting tasks only those count that go before the next task of the
        namespace.
        """
        self._cover(rows)
        nodes = self._nodes.at(rows, now_s)
        division = self._batches.divide(model, rows, nodes, now_s, names=self._batch_names.get(model))
        waiting, waiting_work_s = self._queues.before(rows, namespace)
        return NodeLoads(
            running=nodes.running,
            running_model=self._counts(model)[rows] if model in self._by_model else np.zeros(len(nodes)),
            taken=self._find_taken(rows, resource) if resource else nodes.taken,
            demand_bps=nodes.demand_bps,
            backlog_tokens=nodes.backlog * division.share,
            link_bits=nodes.link_bits,
            reading_share=np.minimum(nodes.reading * division.share, MAX_READING),
            occupancy=nodes.expected_occupancy() * division.share,
            work_s=nodes.work + waiting_work_s,
            usual_work_s=nodes.usual,
            waiting=waiting,
            stall_harm=nodes.stall_harm,
            slow_harm=nodes.slow_harm,
            harmed_s=nodes.harmed_s,
            division=division,
        )

    @property
    def confirmed(self) -> Collection[str]:
        """The tasks that are bound to their nodes."""
        return self._flights.keys() - self._expiry.keys()

    def is_confirmed(self, task_id: str) -> bool:
        """Whether a task is in flight and bound to its node."""
        return task_id in self._flights and task_id not in self._expiry

    def flight(self, task_id: str) -> Flight | None:
        """Return a task in flight."""
        return self._flights.get(task_id)

    def observe(self, task_id: str, now_s: float) -> Residence | None:
        """Return what a task has met on its node so far; None if it is not in flight."""
        flight = self._flights.get(task_id)
        if flight is None:
            return None
        self._nodes.advance(flight.row, now_s)
        return self._find_residence(flight, self._begun[task_id], now_s)

    def _add(self, flight: Flight, now_s: float) -> None:
        self._undo(flight.task_id, now_s)
        nodes, row = self._nodes, flight.row
        nodes.cover(row + 1)
        nodes.advance(row, now_s)
        model = flight.inference.model
        batch = self._batch_names.get(model, {}).get(row, model)
        backlog = float(nodes.backlog[row])
        if backlog and self._batches.has_others(batch):
            backlog *= self._batches.find_share(row, batch, now_s)
        nodes.place(flight, now_s)
        self._begun[flight.task_id] = _Begin(
            at_s=now_s,
            prompts=float(nodes.prompts[row]),
            inputs=float(nodes.inputs[row]),
            backlog=backlog,
            batch=batch,
        )
        self._flights[flight.task_id] = flight
        self.placed += 1
        self._tables.put(flight, batch)
        self._writers.put(flight, batch, now_s)
        self._batches.count(row, batch, 1, now_s)
        self._count(flight, 1)

    def _undo(self, task_id: str, now_s: float) -> Flight | None:
        """Forget a task that was never sent, so its node gets no work from it; return it, None if it is unknown."""
        flight = self._flights.get(task_id)
        if flight is not None:
            self._nodes.advance(flight.row, now_s)
            self._nodes.undo(flight, self._begun[task_id].at_s, now_s)
            self._remove(flight, now_s)
        return flight

    def _remove(self, flight: Flight, now_s: float) -> None:
        task_id, row, nodes = flight.task_id, flight.row, self._nodes
        del self._flights[task_id]
        self._batches.count(row, self._begun.pop(task_id).batch, -1, now_s)
        self._expiry.pop(task_id, None)
        self._count(flight, -1)
        self._tables.remove(flight)
        self._writers.remove(flight, now_s)
        if nodes.running[row] <= nodes.foreign[row]:
            # A node without tasks has no work left, even if some was expected.
            nodes.work[row] = nodes.backlog[row] = nodes.link_bits[row] = 0.0

    def _count(self, flight: Flight, change: int) -> None:
        self._nodes.count(flight, change)
        taken = self._taken_of.get(flight.resource, np.zeros(0))
        taken = self._taken_of[flight.resource] = extend(taken, len(self._nodes))
        taken[flight.row] += change * flight.slots
        model = flight.inference.model
        self._flights_of[model] += change
        self._counts(model)[flight.row] += change
        if not self._flights_of[model]:
            del self._flights_of[model], self._by_model[model]

    def _find_residence(self, flight: Flight, begin: _Begin, now_s: float) -> Residence:
        """Return what a task met on its node, whose figures are up to date."""
        met, gpus = self._writers.find_met(flight.task_id, flight.row, now_s), flight.forecast.gpus
        return Residence(1.0 + max(met.others, 0.0) / gpus, (begin.backlog + met.read_tokens) / gpus, met.pace)

    def _find_taken(self, rows: Index, resource: str) -> FloatArray:
        """Return the slots in use of a resource; what a task without a resource uses counts as one of each."""
        known = [self._taken_of[one] for one in (resource, "") if one in self._taken_of]
        taken = np.zeros(len(self._nodes))
        for one in known:
            taken += extend(one, len(taken))
        return taken[rows]

    def _counts(self, model: str) -> FloatArray:
        """Return the number of tasks of a model in flight by row, which is counted from now on."""
        counts = self._by_model[model] = extend(self._by_model.get(model, np.zeros(0)), len(self._nodes))
        return counts

    def _cover(self, rows: Index) -> None:
        self._nodes.cover(end_of(rows))
