"""What is in flight on each node, as arrays with one entry per row.

Each figure is kept at constant cost per change:

    running     tasks there, requests of others included
    taken       slots that they take, one or more each: what room is left, and nothing else
    backlog     prompt tokens that wait to be read: a fluid queue that drains at the node's reading speed
    link        bits that wait to be fetched: a fluid queue that drains at the uplink's bandwidth
    reading     share of the time the node reads prompts, averaged over the last seconds
    work        GPU seconds given to it per GPU beyond what it can have done by now
    usual       GPU seconds that a task would take there, in the mean of the tasks of all models that were placed lately
                on whichever node: with the work of one model alone as the unit, a small one would pay for the large
    occupancy   tasks there, averaged over the last seconds
    opening     time from placement to the first token, summed over the tasks placed lately: a task that opens does not
                write
"""

from typing import NamedTuple

import numpy as np

from perllm.learning.features import MAX_READING
from perllm.placement.flight import Flight, Residence
from perllm.policy.arrays import Index, columns, extend
from perllm.policy.problem import FloatArray, IntArray

AVERAGE_S = 10.0
"""Time constant of the averages: some runs long, so that a burst fades as its tasks end."""

TASKS_AVERAGED = 200.0
"""How many tasks the usual work is an average of."""

MOST_USUAL = 20.0
"""As many usual tasks as one counts at most in that average: otherwise a single one whose answer is said to be endless
would make all others look small, and every node look empty, for a thousand tasks."""

TARGET = 0.95
"""Share of its time that a node is meant to work at most; what it is given beyond that queues, virtually."""

FIGURES = 20
"""How many of them there are for each node."""


class NodeTable:
    """Sums and averages by row; those that change with time are as of `changed_s`.

    Every figure is a row of one array, so that those of some nodes are found at once: it is written to in place.

    Args:
        figures: all figures, shape (FIGURES, n).
    """

    def __init__(self, figures: FloatArray | None = None) -> None:
        self._show(np.zeros((FIGURES, 0)) if figures is None else figures)

    def _show(self, figures: FloatArray) -> None:
        self._figures = figures
        (
            self.running,
            self.foreign,
            self.taken,
            self.demand_bps,
            self.gpus,
            self.changed_s,
            self.opening,
            self.prompts,
            self.backlog,
            self.backlog_rate,
            self.inputs,
            self.link_bits,
            self.link_bps,
            self.reading,
            self.occupancy,
            self.work,
            self.usual,
            self.stall_harm,
            self.slow_harm,
            self.harmed_s,
        ) = figures

    def __len__(self) -> int:
        return len(self.running)

    def cover(self, size: int) -> None:
        """Make room for `size` rows."""
        if len(self) < size:
            self._show(extend(self._figures, size))

    def part(self, first: int, end: int) -> "NodeTable":
        """Return a table that shows the figures of some rows, and is written through."""
        return NodeTable(self._figures[:, first:end])

    def at(self, rows: Index, now_s: float) -> "NodeTable":
        """Return the figures of some nodes, advanced to the present; to be read only, and before anything changes."""
        nodes = NodeTable(columns(self._figures, rows))
        elapsed_s = now_s - nodes.changed_s
        keep = np.exp(elapsed_s / -AVERAGE_S)
        nodes.backlog = np.maximum(nodes.backlog - elapsed_s * nodes.backlog_rate, 0.0)
        nodes.link_bits = np.maximum(nodes.link_bits - elapsed_s * nodes.link_bps, 0.0)
        nodes.reading = nodes.reading * keep
        nodes.work = np.maximum(nodes.work - TARGET * elapsed_s, 0.0)
        nodes.opening = nodes.opening * keep
        nodes.occupancy = nodes.occupancy + (nodes.running - nodes.occupancy) * (1.0 - keep)
        nodes.changed_s = np.full(len(nodes), now_s)
        return nodes

    def advance(self, row: int, now_s: float) -> None:
        """Advance the figures of a node to the present."""
        elapsed_s = now_s - self.changed_s[row]
        keep = np.exp(-elapsed_s / AVERAGE_S)
        self.backlog[row] = max(self.backlog[row] - elapsed_s * self.backlog_rate[row], 0.0)
        self.link_bits[row] = max(self.link_bits[row] - elapsed_s * self.link_bps[row], 0.0)
        self.reading[row] *= keep
        self.work[row] = max(self.work[row] - TARGET * elapsed_s, 0.0)
        self.opening[row] *= keep
        self.occupancy[row] += (self.running[row] - self.occupancy[row]) * (1.0 - keep)
        self.changed_s[row] = now_s

    def place(self, flight: Flight, now_s: float) -> None:
        """Add a task to its node, whose figures are up to date."""
        row, gpus, brought = flight.row, flight.forecast.gpus, _find_brought(flight, now_s)
        opening_s = max(flight.writes_from_s - now_s, 0.0)
        self.gpus[row] = gpus
        self.backlog_rate[row] = gpus * flight.inference.prompt_tokens / max(flight.forecast.times.reading_s, 1e-6)
        self.opening[row] += opening_s / AVERAGE_S
        self.prompts[row] += brought.prompt_tokens
        self.backlog[row] += brought.prompt_tokens
        self.inputs[row] += brought.input_bits
        self.link_bits[row] += brought.input_bits
        self.reading[row] += brought.reading_s / gpus / AVERAGE_S
        self.work[row] += brought.work_s / gpus

    def undo(self, flight: Flight, placed_s: float, now_s: float) -> None:
        """Remove a task that was never sent, with the work that it was expected to bring and its part in averages."""
        row, gpus, brought = flight.row, flight.forecast.gpus, _find_brought(flight, placed_s)
        keep = np.exp((placed_s - now_s) / AVERAGE_S)
        opening_s = max(flight.writes_from_s - placed_s, 0.0)
        _reduce(self.opening, row, keep * opening_s / AVERAGE_S)
        _reduce(self.prompts, row, brought.prompt_tokens)
        _reduce(self.backlog, row, brought.prompt_tokens)
        _reduce(self.inputs, row, brought.input_bits)
        _reduce(self.link_bits, row, brought.input_bits)
        _reduce(self.reading, row, keep * brought.reading_s / gpus / AVERAGE_S)
        _reduce(self.work, row, brought.work_s / gpus)

    def note_usual(self, rows: IntArray, work_s: FloatArray, usual_s: FloatArray) -> None:
        """Include in the averages the GPU seconds that a task would take on each of the nodes that it may run on.

        Args:
            rows: the nodes.
            work_s: what the task would take there.
            usual_s: the average so far, or an estimate before the first task.
        """
        counted_s = np.minimum(work_s, MOST_USUAL * usual_s)
        self.usual[rows] = usual_s + (counted_s - usual_s) / TASKS_AVERAGED

    def give_back(self, flight: Flight, met: Residence, now_s: float) -> None:
        """Take back the work that a task was expected to bring and has not done, since it has left its node by now.

        Without this, a node would seem busy with an answer that turned out short, or was ended. Work beyond the
        expectation needs no correction, since it is done.
        """
        forecast, times = flight.forecast, flight.forecast.times
        contention_s = times.contention_s * (met.occupancy - forecast.occupancy / forecast.gpus)
        token_s = (times.token_s * forecast.pace + contention_s) / met.pace
        _reduce(self.work, flight.row, _find_unwritten_s(flight, token_s, now_s) / forecast.gpus)

    def give_back_queued(self, flight: Flight, placed_s: float, *, later_tokens: float, later_bits: float) -> None:
        """Take back what is still to be read and fetched for a task that has left its node.

        Without this, the input of a task that failed at once would keep the link of its node from all others for as
        long as the whole of it takes to fetch. Queues are served in turn: what came later is at their ends.
        """
        brought, row = _find_brought(flight, placed_s), flight.row
        _reduce(self.backlog, row, _find_own(float(self.backlog[row]), later_tokens, brought.prompt_tokens))
        _reduce(self.link_bits, row, _find_own(float(self.link_bits[row]), later_bits, brought.input_bits))

    def count(self, flight: Flight, change: int) -> None:
        """Count a task that came (1) or left (-1)."""
        row = flight.row
        self.running[row] += change
        self.taken[row] += change * flight.slots
        self.demand_bps[row] = max(self.demand_bps[row] + change * flight.forecast.demand_bps, 0.0)

    def reading_share(self, now_s: float) -> FloatArray:
        """Return the share of the time each node has read prompts lately, at most `MAX_READING`."""
        share: FloatArray = np.minimum(self.reading * np.exp((self.changed_s - now_s) / AVERAGE_S), MAX_READING)
        return share

    def expected_occupancy(self) -> FloatArray:
        """Return how many tasks are expected to write on each node: the mean of the present and the recent number.

        Of the tasks there, by Little's law, (rate of placements) x (time until they write) do not write yet.
        """
        occupancy: FloatArray = np.maximum(0.5 * (self.running + self.occupancy) - self.opening, 0.0)
        return occupancy


class _Brought(NamedTuple):
    """What a task brings to its node: tokens to read, bits to fetch, GPU seconds of reading, and of all its work."""

    prompt_tokens: float
    input_bits: float
    reading_s: float
    work_s: float


def _find_brought(flight: Flight, from_s: float) -> _Brought:
    """Return what a task brings that is counted from then on.

    One that was placed by an earlier process, and writes by then, has fetched and read: counted once more, the inputs
    and prompts of all tasks in flight would keep their nodes from new ones for a while after each restart.
    """
    inference, times = flight.inference, flight.forecast.times
    if from_s <= flight.writes_from_s:
        return _Brought(inference.prompt_tokens, inference.input_bits, times.reading_s, times.work_s)
    return _Brought(0.0, 0.0, 0.0, _find_unwritten_s(flight, times.token_s, from_s))


def _find_unwritten_s(flight: Flight, token_s: float, now_s: float) -> float:
    """Return the GPU seconds of what a task is expected to write still, if it writes a token in so many seconds."""
    times = flight.forecast.times
    written = max(now_s - flight.writes_from_s, 0.0) / max(token_s, times.solo_token_s)
    missing = max(1.0 - written / max(flight.inference.output_tokens, 1.0), 0.0)
    return missing * (times.work_s - times.reading_s * flight.forecast.pace)


def _find_own(queued: float, later: float, own: float) -> float:
    """Return how much of a queue is a task's own, given what came later and how much it brought."""
    return min(max(queued - max(later, 0.0), 0.0), own)


def _reduce(values: FloatArray, row: int, amount: float) -> None:
    values[row] = max(values[row] - amount, 0.0)
