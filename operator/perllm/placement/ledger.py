"""What is in flight: every task that a node has been chosen for and whose end is not yet known.

kube-scheduler does not tell an extender when a placement fails after the decision, so a reservation expires unless the
pod is seen bound. Every node's occupancy is integrated over time, so that the mean number of tasks during any run
costs two subtractions.
"""

from dataclasses import dataclass

import numpy as np

from perllm.policy.problem import FloatArray, IntArray

RESERVATION_S = 10.0
"""kube-scheduler gives a bind call less; after that the decision was not carried out."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A task in flight.

    Attributes:
        task_id: uid of the task.
        model: its model.
        row: the node.
        demand_bps: uplink it needs to bring its input there in time.
        since_s: when it was placed.
        occupancy_area: the node's integrated occupancy then.
    """

    task_id: str
    model: str
    row: int
    demand_bps: float
    since_s: float
    occupancy_area: float


class Ledger:
    """Tasks in flight by node. Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._expiry: dict[str, float] = {}
        self._running = np.zeros(0)
        self._demand_bps = np.zeros(0)
        self._area = np.zeros(0)
        self._changed_s = np.zeros(0)
        self._by_model: dict[str, FloatArray] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def reserve(self, task_id: str, model: str, row: int, demand_bps: float, now_s: float) -> None:
        """Note that a node was chosen; forgotten after `RESERVATION_S` unless confirmed."""
        self._add(task_id, model, row, demand_bps, now_s)
        self._expiry[task_id] = now_s + RESERVATION_S

    def confirm(self, task_id: str, model: str, row: int, demand_bps: float, now_s: float) -> None:
        """Note that the task is bound to a node, reserved or not."""
        known = self._flights.get(task_id)
        if known is None or known.row != row:
            self._add(task_id, model, row, demand_bps, now_s)
        self._expiry.pop(task_id, None)

    def cancel(self, task_id: str, now_s: float) -> None:
        """Forget a reservation; a confirmed task stays."""
        if task_id in self._expiry:
            self.release(task_id, now_s)

    def release(self, task_id: str, now_s: float) -> float | None:
        """Forget a task and return the mean occupancy of its node while it was there; None if it was unknown."""
        flight = self._flights.pop(task_id, None)
        self._expiry.pop(task_id, None)
        if flight is None:
            return None
        self._change(flight, -1.0, now_s)
        duration_s = now_s - flight.since_s
        if duration_s <= 0:
            return max(float(self._running[flight.row]) + 1.0, 1.0)
        return max(float(self._area[flight.row] - flight.occupancy_area) / duration_s, 1.0)

    def expire(self, now_s: float) -> list[str]:
        """Forget reservations that were never confirmed and return their tasks."""
        late = [task_id for task_id, expiry_s in self._expiry.items() if expiry_s <= now_s]
        for task_id in late:
            self.release(task_id, now_s)
        return late

    def running(self, rows: IntArray) -> FloatArray:
        """Return the number of tasks in flight on each node."""
        self._cover(int(rows.max(initial=-1)) + 1)
        return self._running[rows]

    def demand_bps(self, rows: IntArray) -> FloatArray:
        """Return the uplink promised to tasks in flight on each node."""
        self._cover(int(rows.max(initial=-1)) + 1)
        return self._demand_bps[rows]

    def running_model(self, model: str, rows: IntArray) -> FloatArray:
        """Return the number of tasks of one model in flight on each node."""
        self._cover(int(rows.max(initial=-1)) + 1)
        return self._model(model)[rows]

    def _add(self, task_id: str, model: str, row: int, demand_bps: float, now_s: float) -> None:
        self.release(task_id, now_s)
        self._cover(row + 1)
        self._integrate(row, now_s)
        flight = Flight(task_id, model, row, demand_bps, now_s, float(self._area[row]))
        self._flights[task_id] = flight
        self._change(flight, 1.0, now_s)

    def _change(self, flight: Flight, count: float, now_s: float) -> None:
        self._integrate(flight.row, now_s)
        self._running[flight.row] += count
        self._demand_bps[flight.row] = max(self._demand_bps[flight.row] + count * flight.demand_bps, 0.0)
        self._model(flight.model)[flight.row] += count

    def _integrate(self, row: int, now_s: float) -> None:
        self._area[row] += self._running[row] * (now_s - self._changed_s[row])
        self._changed_s[row] = now_s

    def _model(self, model: str) -> FloatArray:
        counts = self._by_model.get(model)
        if counts is None or len(counts) < len(self._running):
            known = np.zeros(0) if counts is None else counts
            counts = np.concatenate([known, np.zeros(len(self._running) - len(known))])
            self._by_model[model] = counts
        return counts

    def _cover(self, rows: int) -> None:
        missing = np.zeros(max(rows - len(self._running), 0))
        if len(missing):
            self._running = np.concatenate([self._running, missing])
            self._demand_bps = np.concatenate([self._demand_bps, missing])
            self._area = np.concatenate([self._area, missing])
            self._changed_s = np.concatenate([self._changed_s, missing])
