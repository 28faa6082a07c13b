"""What is in flight: every task that a node has been chosen for and whose end is not yet known.

kube-scheduler does not tell an extender when a placement fails after the decision, so a reservation expires unless the
pod is seen bound. Per node the ledger keeps what the next decision needs, each at constant cost per change:

    running     tasks there, and their number integrated over time (area): the mean of any run is two subtractions
    taken       slots that they take, one or more each: what room is left, and nothing else
    backlog     prompt tokens that wait to be read: a fluid queue that drains at the node's reading speed
    link        bits that wait to be fetched: a fluid queue that drains at the uplink's bandwidth
    reading     share of the time the node reads prompts, averaged over the last seconds
    work        GPU seconds given to it per second and GPU, averaged over the last seconds
    crowd       tasks there, averaged over the last seconds
    opening     time from placement to the first token, summed over the tasks placed: who opens does not write

and, from all tasks in flight together (`refresh`), how many of them would miss their deadline per second that the node
is held up, and per unit by which it gets slower.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from perllm.learning.features import MAX_READING
from perllm.learning.lengths import survival
from perllm.placement.node_queues import NodeQueues
from perllm.policy.problem import FloatArray, IntArray

RESERVATION_S = 10.0
"""kube-scheduler gives a bind call less; after that the decision was not carried out."""

AVERAGE_S = 10.0
"""Time constant of the averages: some runs long, so that a burst fades as its tasks end."""

TARGET = 0.95
"""Share of its time that a node is meant to work at most; what it is given beyond that queues, virtually."""

NUDGE = 0.05
"""Harm is a slope, taken over this share of the time a task has left."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A task in flight, and what is expected of it there.

    Attributes:
        task_id: uid of the task.
        model: its model.
        row: the node.
        gpus: GPUs of the node.
        demand_bps: uplink it needs to bring its input there in time.
        input_bits: size of its input.
        prompt_tokens: tokens to read.
        reading_s: seconds that takes the node.
        work_s: GPU seconds that the task takes of a node whose batch is full.
        due_s: deadline.
        writes_from_s: when its first token is expected.
        solo_token_s: seconds per token there, alone.
        contention_s: seconds per token that each further task adds.
        length_centre: the answer's length, ln L = centre + spread z.
        length_spread: spread of it.
        length_kind: shape of z.
        slots: slots of the node that it takes.
    """

    task_id: str
    model: str
    row: int
    gpus: float
    demand_bps: float
    input_bits: float
    prompt_tokens: float
    reading_s: float
    work_s: float
    due_s: float
    writes_from_s: float
    solo_token_s: float
    contention_s: float
    length_centre: float
    length_spread: float
    length_kind: int
    slots: float = 1.0


@dataclass(frozen=True, slots=True)
class Residence:
    """What a task met on its node, per GPU.

    Attributes:
        occupancy: mean number of tasks that wrote, itself included.
        others_tokens: prompt tokens of others that it sat through.
    """

    occupancy: float
    others_tokens: float


@dataclass(frozen=True, slots=True)
class _Begin:
    """The sums of a node when a task was placed there."""

    at_s: float
    area: float
    opened: float
    prompts: float
    backlog: float


_FIELDS = ("due_s", "writes_from_s", "solo_token_s", "contention_s", "length_centre", "length_spread")
_NODE_FIELDS = (
    "running",
    "taken",
    "demand_bps",
    "area",
    "changed_s",
    "opened",
    "opening",
    "prompts",
    "backlog",
    "backlog_rate",
    "link_bits",
    "link_bps",
    "reading",
    "crowd",
    "work",
    "gpus",
    "stall_harm",
    "slow_harm",
    "harmed_s",
)


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
        self._nodes: dict[str, FloatArray] = {name: np.zeros(0) for name in _NODE_FIELDS}
        self._by_model: dict[str, FloatArray] = {}
        self._flights_of: dict[str, int] = defaultdict(int)
        self._place: dict[str, int] = {}
        self._ids: list[str] = []
        self._rows = np.zeros(64, dtype=np.int64)
        self._kinds = np.zeros(64, dtype=np.int64)
        self._table = np.zeros((len(_FIELDS), 64))

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

    def confirm(self, flight: Flight, now_s: float) -> None:
        """Note that the task is bound to a node, reserved or not."""
        known = self._flights.get(flight.task_id)
        if known is None or known.row != flight.row:
            self._add(flight, now_s)
        self._expiry.pop(flight.task_id, None)

    def cancel(self, task_id: str, now_s: float) -> None:
        """Forget a reservation; a confirmed task stays."""
        if task_id in self._expiry:
            self._take_back(task_id, now_s)

    def release(self, task_id: str, now_s: float) -> Residence | None:
        """Forget a task and return what it met on its node; None if it was unknown."""
        flight = self._flights.pop(task_id, None)
        self._expiry.pop(task_id, None)
        if flight is None:
            return None
        begin, row, nodes = self._begun.pop(task_id), flight.row, self._nodes
        self._integrate(row, now_s)
        duration_s = max(now_s - begin.at_s, 1e-9)
        # Of the tasks that were there with it, those still opening did not write.
        others = float(nodes["area"][row]) - begin.area - duration_s - (float(nodes["opened"][row]) - begin.opened)
        occupancy = 1.0 + max(others / duration_s, 0.0) / flight.gpus
        # Prompts of those placed within the last start-up are not read before this one ends.
        read = max(1.0 - max(flight.writes_from_s - begin.at_s - flight.reading_s, 0.0) / duration_s, 0.0)
        prompts = begin.backlog + read * max(float(nodes["prompts"][row]) - begin.prompts, 0.0)
        self._change(flight, -1.0)
        self._drop(task_id)
        if nodes["running"][row] <= 0.0:
            # Whatever was thought to be left of them, tasks that are gone leave no work.
            nodes["work"][row] = nodes["backlog"][row] = 0.0
        return Residence(occupancy, prompts / flight.gpus)

    def wait(self, task_id: str, row: int, work_s: float, *, slots: float = 1.0, namespace: str = "") -> None:
        """Note that a task waits for slots of a node, and which GPU seconds it would take of each of its GPUs."""
        self._queues.put(task_id, row, slots=slots, work_s=work_s, namespace=namespace)

    def stop_waiting(self, task_id: str) -> None:
        """Forget that a task waits."""
        self._queues.remove(task_id)

    def expire(self, now_s: float) -> list[str]:
        """Forget reservations that were never confirmed and return their tasks."""
        late = [task_id for task_id, expiry_s in self._expiry.items() if expiry_s <= now_s]
        for task_id in late:
            self._take_back(task_id, now_s)
        return late

    def flight(self, task_id: str) -> Flight | None:
        """Return a task in flight."""
        return self._flights.get(task_id)

    def running(self, rows: IntArray) -> FloatArray:
        """Return the number of tasks in flight on each node."""
        return self._of("running", rows)

    def taken(self, rows: IntArray) -> FloatArray:
        """Return the slots that tasks in flight take of each node."""
        return self._of("taken", rows)

    def waiting(self, rows: IntArray, namespace: str = "") -> FloatArray:
        """Return the slots that are waited for on each node before the next task of a namespace."""
        return self._queues.before(rows, namespace)[0]

    def demand_bps(self, rows: IntArray) -> FloatArray:
        """Return the uplink promised to tasks in flight on each node."""
        return self._of("demand_bps", rows)

    def running_model(self, model: str, rows: IntArray) -> FloatArray:
        """Return the number of tasks of one model in flight on each node."""
        counts = self._by_model.get(model)
        if counts is None:
            return np.zeros(len(rows))
        self._cover(int(rows.max(initial=-1)) + 1)
        return self._model(model)[rows]

    def backlog_tokens(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the prompt tokens that wait to be read on each node."""
        elapsed_s = now_s - self._of("changed_s", rows)
        left: FloatArray = np.maximum(self._nodes["backlog"][rows] - elapsed_s * self._nodes["backlog_rate"][rows], 0.0)
        return left

    def link_bits(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the bits that wait to be fetched by each node."""
        elapsed_s = now_s - self._of("changed_s", rows)
        left: FloatArray = np.maximum(self._nodes["link_bits"][rows] - elapsed_s * self._nodes["link_bps"][rows], 0.0)
        return left

    def reading_share(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the share of the time each node has read prompts lately, at most `MAX_READING`."""
        fade = np.exp((self._of("changed_s", rows) - now_s) / AVERAGE_S)
        share: FloatArray = np.minimum(self._nodes["reading"][rows] * fade, MAX_READING)
        return share

    def load(self, rows: IntArray, now_s: float, namespace: str = "") -> FloatArray:
        """Return the work that each node was given beyond what it can do by now, or awaits; GPU seconds per GPU.

        Of what it awaits that counts which goes before the next task of the namespace.
        """
        elapsed_s = now_s - self._of("changed_s", rows)
        left: FloatArray = np.maximum(self._nodes["work"][rows] - TARGET * elapsed_s, 0.0)
        return left + self._queues.before(rows, namespace)[1]

    def crowd(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return how many tasks are to be expected to write on each node: as many as now and lately in the mean.

        Of the tasks there, by Little's law, (rate of placements) x (time until they write) do not write yet.
        """
        keep = np.exp((self._of("changed_s", rows) - now_s) / AVERAGE_S)
        nodes, running = self._nodes, self._nodes["running"][rows]
        lately = nodes["crowd"][rows] * keep + running * (1.0 - keep)
        crowd: FloatArray = np.maximum(0.5 * (running + lately) - nodes["opening"][rows] * keep, 0.0)
        return crowd

    def harms(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return, per node, misses per second of delay, misses per unit of slow-down, and how long the latter matters.

        As of the last `refresh`.
        """
        self._cover(int(rows.max(initial=-1)) + 1)
        nodes = self._nodes
        return nodes["stall_harm"][rows], nodes["slow_harm"][rows], nodes["harmed_s"][rows]

    def refresh(self, now_s: float, shapes: FloatArray) -> None:
        """Work out anew how tight the tasks in flight are; linear in their number.

        Args:
            now_s: now.
            shapes: of the answers' lengths, by kind, as the learner counts them.
        """
        count, nodes = len(self._ids), self._nodes
        size = len(nodes["running"])
        if count == 0:
            for name in ("stall_harm", "slow_harm", "harmed_s"):
                nodes[name] = np.zeros(size)
            return
        rows, kinds = self._rows[:count], self._kinds[:count]
        due_s, writes_from_s, solo_token_s, contention_s, centre, spread = self._table[:, :count]
        everyone = np.arange(size)
        per_gpu = nodes["running"] / np.maximum(nodes["gpus"], 1.0)
        slower = 1.0 / (1.0 - self.reading_share(everyone, now_s))
        token_s = (solo_token_s + contention_s * np.maximum(per_gpu[rows] - 1.0, 0.0)) * slower[rows]
        written = np.maximum(now_s - writes_from_s, 0.0) / token_s
        left_s = np.maximum(due_s - np.maximum(now_s, writes_from_s), 0.0)
        reach = written + left_s / token_s
        tail_now, tail, tail_nudged = (
            survival(shapes, kinds, (np.log(np.maximum(tokens, 0.5)) - centre) / spread)
            for tokens in (written, reach, reach - NUDGE * left_s / token_s)
        )
        slow = np.where(left_s > 0, (tail_nudged - tail) / np.maximum(tail_now, 1e-6) / NUDGE, 0.0)
        nodes["stall_harm"] = _sum_by(rows, slow / np.maximum(left_s, 0.1), size)
        nodes["slow_harm"] = _sum_by(rows, slow, size)
        nodes["harmed_s"] = _sum_by(rows, slow * left_s, size) / np.maximum(nodes["slow_harm"], 1e-9)

    def _take_back(self, task_id: str, now_s: float) -> None:
        """Forget a task that was never sent: nothing of it flows to its node after all."""
        flight = self._flights.get(task_id)
        if flight is None:
            return
        begin, row, nodes = self._begun[task_id], flight.row, self._nodes
        self.release(task_id, now_s)
        keep = np.exp((begin.at_s - now_s) / AVERAGE_S)
        opening_s = max(flight.writes_from_s - begin.at_s, 0.0)
        taken = {
            "area": now_s - begin.at_s,
            "opened": opening_s,
            "opening": keep * opening_s / AVERAGE_S,
            "prompts": flight.prompt_tokens,
            "backlog": flight.prompt_tokens,
            "link_bits": flight.input_bits,
            "reading": keep * flight.reading_s / flight.gpus / AVERAGE_S,
            "work": flight.work_s / flight.gpus,
        }
        for name, amount in taken.items():
            nodes[name][row] = max(nodes[name][row] - amount, 0.0)

    def _add(self, flight: Flight, now_s: float) -> None:
        self._take_back(flight.task_id, now_s)
        row = flight.row
        self._cover(row + 1)
        self._integrate(row, now_s)
        nodes = self._nodes
        nodes["gpus"][row] = flight.gpus
        nodes["backlog_rate"][row] = flight.gpus * flight.prompt_tokens / max(flight.reading_s, 1e-6)
        opening_s = max(flight.writes_from_s - now_s, 0.0)
        self._begun[flight.task_id] = _Begin(
            now_s,
            float(nodes["area"][row]),
            float(nodes["opened"][row]) + opening_s,
            float(nodes["prompts"][row]) + flight.prompt_tokens,
            float(nodes["backlog"][row]),
        )
        nodes["opened"][row] += opening_s
        nodes["opening"][row] += opening_s / AVERAGE_S
        nodes["prompts"][row] += flight.prompt_tokens
        nodes["backlog"][row] += flight.prompt_tokens
        nodes["link_bits"][row] += flight.input_bits
        nodes["reading"][row] += flight.reading_s / flight.gpus / AVERAGE_S
        nodes["work"][row] += flight.work_s / flight.gpus
        self._flights[flight.task_id] = flight
        self.placed += 1
        self._put(flight)
        self._change(flight, 1.0)

    def _change(self, flight: Flight, count: float) -> None:
        nodes, row = self._nodes, flight.row
        nodes["running"][row] += count
        nodes["taken"][row] += count * flight.slots
        nodes["demand_bps"][row] = max(nodes["demand_bps"][row] + count * flight.demand_bps, 0.0)
        self._flights_of[flight.model] += int(count)
        self._model(flight.model)[row] += count
        if not self._flights_of[flight.model]:
            del self._flights_of[flight.model], self._by_model[flight.model]

    def _integrate(self, row: int, now_s: float) -> None:
        """Bring everything that flows on a node up to now."""
        nodes = self._nodes
        elapsed_s = now_s - nodes["changed_s"][row]
        keep = np.exp(-elapsed_s / AVERAGE_S)
        nodes["area"][row] += nodes["running"][row] * elapsed_s
        nodes["backlog"][row] = max(nodes["backlog"][row] - elapsed_s * nodes["backlog_rate"][row], 0.0)
        nodes["link_bits"][row] = max(nodes["link_bits"][row] - elapsed_s * nodes["link_bps"][row], 0.0)
        nodes["reading"][row] *= keep
        nodes["work"][row] = max(nodes["work"][row] - TARGET * elapsed_s, 0.0)
        nodes["opening"][row] *= keep
        nodes["crowd"][row] += (nodes["running"][row] - nodes["crowd"][row]) * (1.0 - keep)
        nodes["changed_s"][row] = now_s

    def put_bandwidth(self, rows: IntArray, bandwidth_bps: FloatArray) -> None:
        """Note how fast the nodes' links drain."""
        self._cover(int(rows.max(initial=-1)) + 1)
        self._nodes["link_bps"][rows] = bandwidth_bps

    def _put(self, flight: Flight) -> None:
        place = len(self._ids)
        if place == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._kinds = np.concatenate([self._kinds, np.zeros_like(self._kinds)])
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._ids.append(flight.task_id)
        self._place[flight.task_id] = place
        self._rows[place], self._kinds[place] = flight.row, flight.length_kind
        self._table[:, place] = [getattr(flight, name) for name in _FIELDS]

    def _drop(self, task_id: str) -> None:
        """Take a task out of the arrays; the last one moves into its place."""
        place, last = self._place.pop(task_id), self._ids.pop()
        if last == task_id:
            return
        end = len(self._ids)
        self._ids[place], self._place[last] = last, place
        self._rows[place], self._kinds[place] = self._rows[end], self._kinds[end]
        self._table[:, place] = self._table[:, end]

    def _of(self, name: str, rows: IntArray) -> FloatArray:
        self._cover(int(rows.max(initial=-1)) + 1)
        return self._nodes[name][rows]

    def _model(self, model: str) -> FloatArray:
        counts = self._by_model.get(model)
        size = len(self._nodes["running"])
        if counts is None or len(counts) < size:
            known = np.zeros(0) if counts is None else counts
            counts = np.concatenate([known, np.zeros(size - len(known))])
            self._by_model[model] = counts
        return counts

    def _cover(self, rows: int) -> None:
        missing = rows - len(self._nodes["running"])
        if missing > 0:
            for name, values in self._nodes.items():
                self._nodes[name] = np.concatenate([values, np.zeros(missing)])


def _sum_by(rows: IntArray, values: FloatArray, size: int) -> FloatArray:
    return np.bincount(rows, values, size).astype(np.float64)
