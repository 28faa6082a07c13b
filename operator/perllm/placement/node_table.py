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

from dataclasses import dataclass, field, fields

import numpy as np

from perllm.learning.features import MAX_READING
from perllm.placement.flight import Flight
from perllm.policy.arrays import extend
from perllm.policy.problem import FloatArray, IntArray

AVERAGE_S = 10.0
"""Time constant of the averages: some runs long, so that a burst fades as its tasks end."""

TASKS_AVERAGED = 200.0
"""How many tasks the usual work is an average of."""

TARGET = 0.95
"""Share of its time that a node is meant to work at most; what it is given beyond that queues, virtually."""


def _empty() -> FloatArray:
    return np.zeros(0)


@dataclass(slots=True)
class NodeTable:
    """Sums and averages by row; those that change with time are as of `changed_s`."""

    running: FloatArray = field(default_factory=_empty)
    foreign: FloatArray = field(default_factory=_empty)
    taken: FloatArray = field(default_factory=_empty)
    demand_bps: FloatArray = field(default_factory=_empty)
    gpus: FloatArray = field(default_factory=_empty)
    changed_s: FloatArray = field(default_factory=_empty)
    opening: FloatArray = field(default_factory=_empty)
    prompts: FloatArray = field(default_factory=_empty)
    backlog: FloatArray = field(default_factory=_empty)
    backlog_rate: FloatArray = field(default_factory=_empty)
    link_bits: FloatArray = field(default_factory=_empty)
    link_bps: FloatArray = field(default_factory=_empty)
    reading: FloatArray = field(default_factory=_empty)
    occupancy: FloatArray = field(default_factory=_empty)
    work: FloatArray = field(default_factory=_empty)
    usual: FloatArray = field(default_factory=_empty)
    stall_harm: FloatArray = field(default_factory=_empty)
    slow_harm: FloatArray = field(default_factory=_empty)
    harmed_s: FloatArray = field(default_factory=_empty)

    def __len__(self) -> int:
        return len(self.running)

    def cover(self, size: int) -> None:
        """Make room for so many rows."""
        if len(self) < size:
            for one in fields(self):
                setattr(self, one.name, extend(getattr(self, one.name), size))

    def advance(self, row: int, now_s: float) -> None:
        """Bring everything that flows on a node up to now."""
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
        """Add what a task brings to its node, which has been brought up to now."""
        row, gpus, times = flight.row, flight.forecast.gpus, flight.forecast.times
        prompt_tokens = flight.inference.prompt_tokens
        opening_s = max(flight.writes_from_s - now_s, 0.0)
        self.gpus[row] = gpus
        self.backlog_rate[row] = gpus * prompt_tokens / max(times.reading_s, 1e-6)
        self.opening[row] += opening_s / AVERAGE_S
        self.prompts[row] += prompt_tokens
        self.backlog[row] += prompt_tokens
        self.link_bits[row] += flight.inference.input_bits
        self.reading[row] += times.reading_s / gpus / AVERAGE_S
        self.work[row] += times.work_s / gpus

    def undo(self, flight: Flight, placed_s: float, now_s: float) -> None:
        """Remove what a task that was never sent was thought to bring, and what it was counted for since."""
        row, gpus, times = flight.row, flight.forecast.gpus, flight.forecast.times
        keep = np.exp((placed_s - now_s) / AVERAGE_S)
        opening_s = max(flight.writes_from_s - placed_s, 0.0)
        _reduce(self.opening, row, keep * opening_s / AVERAGE_S)
        _reduce(self.prompts, row, flight.inference.prompt_tokens)
        _reduce(self.backlog, row, flight.inference.prompt_tokens)
        _reduce(self.link_bits, row, flight.inference.input_bits)
        _reduce(self.reading, row, keep * times.reading_s / gpus / AVERAGE_S)
        _reduce(self.work, row, times.work_s / gpus)

    def note_usual(self, rows: IntArray, work_s: FloatArray, usual_s: FloatArray) -> None:
        """Average the GPU seconds in that a task would take on each of the nodes that it may run on.

        Args:
            rows: the nodes.
            work_s: what the task would take there.
            usual_s: what a task took so far, or is thought to take before the first one.
        """
        self.usual[rows] = usual_s + (work_s - usual_s) / TASKS_AVERAGED

    def give_back(self, flight: Flight, occupancy: float, now_s: float) -> None:
        """Take back the work that a task was expected to bring and has not done, since it has left its node by now.

        Without this the work of an answer that was expected to be long, or was ended, keeps tasks off a node that has
        none of it left. What a task did beyond the expectation is done: it keeps nobody off.
        """
        forecast, times = flight.forecast, flight.forecast.times
        token_s = times.token_s + times.contention_s * (occupancy - forecast.occupancy / forecast.gpus)
        written = max(now_s - flight.writes_from_s, 0.0) / max(token_s, times.solo_token_s)
        missing = max(1.0 - written / max(flight.inference.output_tokens, 1.0), 0.0)
        _reduce(self.work, flight.row, missing * (times.work_s - times.reading_s) / forecast.gpus)

    def count(self, flight: Flight, change: int) -> None:
        """Count a task that came (1) or left (-1)."""
        row = flight.row
        self.running[row] += change
        self.taken[row] += change * flight.slots
        self.demand_bps[row] = max(self.demand_bps[row] + change * flight.forecast.demand_bps, 0.0)

    def backlog_tokens(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the prompt tokens that wait to be read on each node."""
        return self._drain(self.backlog, self.backlog_rate, rows, now_s)

    def link_backlog_bits(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the bits that wait to be fetched by each node."""
        return self._drain(self.link_bits, self.link_bps, rows, now_s)

    def reading_share(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the share of the time each node has read prompts lately, at most `MAX_READING`."""
        share: FloatArray = np.minimum(self.reading[rows] * self._fade(rows, now_s), MAX_READING)
        return share

    def excess_work_s(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return the work that each node was given beyond what it can do by now, in GPU seconds per GPU."""
        left: FloatArray = np.maximum(self.work[rows] - TARGET * (now_s - self.changed_s[rows]), 0.0)
        return left

    def expected_occupancy(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return how many tasks are to be expected to write on each node: as many as now and lately in the mean.

        Of the tasks there, by Little's law, (rate of placements) x (time until they write) do not write yet.
        """
        keep, running = self._fade(rows, now_s), self.running[rows]
        lately = self.occupancy[rows] * keep + running * (1.0 - keep)
        occupancy: FloatArray = np.maximum(0.5 * (running + lately) - self.opening[rows] * keep, 0.0)
        return occupancy

    def _drain(self, queue: FloatArray, rate: FloatArray, rows: IntArray, now_s: float) -> FloatArray:
        left: FloatArray = np.maximum(queue[rows] - (now_s - self.changed_s[rows]) * rate[rows], 0.0)
        return left

    def _fade(self, rows: IntArray, now_s: float) -> FloatArray:
        fade: FloatArray = np.exp((self.changed_s[rows] - now_s) / AVERAGE_S)
        return fade


def _reduce(values: FloatArray, row: int, amount: float) -> None:
    values[row] = max(values[row] - amount, 0.0)
