"""What happened to every task of a run."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from perllm_lab.hardware.node import Finished
from perllm_lab.simulator.result import Fate, Floats, TaskTable
from perllm_lab.simulator.scheduler import Forecast
from perllm_lab.workload.requests import Request

NAN = float("nan")
NOWHERE = -1
FORECASTS = tuple(field.name for field in fields(Forecast))
NOTHING_FORECAST = Forecast()


class TaskRecords:
    """Rows of plain numbers, one per task; lists because single entries of arrays are slow to write."""

    def __init__(self, requests: Sequence[Request]) -> None:
        count = len(requests)
        self._requests = requests
        self.due_s = [request.at_s + request.deadline_s for request in requests]
        self.fate: list[Fate | None] = [None] * count
        self.node = [NOWHERE] * count
        self.decided_s = [NAN] * count
        self.bound_s = [NAN] * count
        self.transferred_s = [NAN] * count
        self.finished_s = [NAN] * count
        self.energy_j = [0.0] * count
        self.transmission_j = [0.0] * count
        self.runs = [0] * count
        self.explored = [False] * count
        self.forecast = [NOTHING_FORECAST] * count

    def note_start(self, number: int, node: int, now_s: float, forecast: Forecast, explored: bool) -> None:
        """Record that a task was sent to a node. Only the energy of an unfinished run on an earlier node is kept."""
        self.node[number] = node
        self.decided_s[number] = now_s
        self.bound_s[number] = NAN
        self.transferred_s[number] = NAN
        self.forecast[number] = forecast
        self.explored[number] = explored

    def note_bound(self, number: int, now_s: float) -> None:
        """Record that the node took the task."""
        self.bound_s[number] = now_s
        self.runs[number] += 1

    def note_run(self, number: int, run: Finished, j_per_bit: float) -> None:
        """Record the end of a run, complete or not. The input counts as moved once the container began to fetch it."""
        self.transferred_s[number] = run.transferred_s
        self.energy_j[number] += run.energy_j
        if run.started_s < run.finished_s:
            self.transmission_j[number] += run.job.input_bytes * 8.0 * j_per_bit

    def note_end(self, number: int, fate: Fate, now_s: float = NAN) -> None:
        """Record the end of a task, which happens once."""
        if self.fate[number] is not None:
            raise AssertionError(f"task {number} has already ended as {self.fate[number]!r}, now {fate!r}")
        self.fate[number] = fate
        self.finished_s[number] = now_s

    def build_table(self) -> TaskTable:
        """Return the rows as arrays. Every task must have ended."""
        lost = [number for number, fate in enumerate(self.fate) if fate is None]
        if lost:
            raise AssertionError(f"{len(lost)} tasks were lost, the first is {lost[0]}")
        requests = self._requests
        return TaskTable(
            at_s=_floats([request.at_s for request in requests]),
            deadline_s=_floats([request.deadline_s for request in requests]),
            prompt_tokens=_floats([request.prompt_tokens for request in requests]),
            output_tokens=_floats([request.output_tokens for request in requests]),
            fate=np.array(self.fate, dtype=np.int8),
            node=np.array(self.node, dtype=np.int64),
            decided_s=_floats(self.decided_s),
            bound_s=_floats(self.bound_s),
            transferred_s=_floats(self.transferred_s),
            finished_s=_floats(self.finished_s),
            energy_j=_floats(self.energy_j),
            transmission_j=_floats(self.transmission_j),
            runs=np.array(self.runs, dtype=np.int64),
            explored=np.array(self.explored, dtype=np.bool_),
            forecast=self._forecasts(),
        )

    def _forecasts(self) -> dict[str, Floats]:
        if all(forecast == NOTHING_FORECAST for forecast in self.forecast):
            # One array serves all fields: most baselines predict nothing, and results are sent between processes.
            nothing = np.full(len(self.forecast), NAN)
            return dict.fromkeys(FORECASTS, nothing)
        return {name: _floats([getattr(forecast, name) for forecast in self.forecast]) for name in FORECASTS}


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64)
