"""A GPU with a clock of its own, which takes the time and the energy that its law says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.gpu_laws.arrivals import draw_arrivals
from bench.gpu_laws.engine import Engine, serve
from bench.gpu_laws.load_record import LoadRecord
from bench.gpu_laws.readings import Readings

READING_W, WRITING_W, WRITING_TASK_W, IDLE_W = 690.0, 430.0, 2.0, 130.0
STEP_S, READ_EVERY_S, MARGIN_S = 0.1, 0.014, 8.0


@dataclass
class FakeGpu:
    """Passes that take no time but that of their law.

    Attributes:
        now_s: its clock.
        powers_w: power since each of some times.
        slots: those of the last iteration, to see what was asked.
    """

    now_s: float = 100.0
    powers_w: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, IDLE_W)])

    def clock(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s + 1e-9

    def read(self, slot: int, tokens: int) -> None:
        self._work(max(0.005, 30e-6 * tokens), READING_W)

    def iterate(self, slots: Sequence[int], contexts: Sequence[int]) -> None:
        self._work(0.005 + 9e-6 * len(slots) + 36e-9 * sum(contexts), WRITING_W + WRITING_TASK_W * len(slots))

    def count_j(self, times_s: np.ndarray) -> np.ndarray:
        """Return the joules drawn until then."""
        begins_s, powers_w = np.array(self.powers_w).T
        until_j = np.concatenate([[0.0], np.cumsum(powers_w[:-1] * np.diff(begins_s))])
        last = np.searchsorted(begins_s, times_s, side="right") - 1
        return until_j[last] + powers_w[last] * (times_s - begins_s[last])

    def _work(self, for_s: float, power_w: float) -> None:
        self.powers_w.append((self.now_s, power_w))
        self.now_s += for_s
        self.powers_w.append((self.now_s, IDLE_W))


def serve_load(rate_per_s: float, for_s: float, seed: int = 0) -> tuple[LoadRecord, dict[int, float]]:
    """Return the record of a load, and the joules of each task in truth."""
    gpu = FakeGpu()
    engine = Engine(gpu, gpu.clock, slots=96)
    serve(engine, draw_arrivals(rate_per_s, for_s, seed), gpu.sleep)
    time_s = np.arange(100.0 - MARGIN_S, gpu.now_s + MARGIN_S, READ_EVERY_S)
    refreshed_s = np.floor(time_s / STEP_S) * STEP_S
    count_j = gpu.count_j(refreshed_s)
    readings = Readings(
        time_s,
        count_j,
        count_j - gpu.count_j(refreshed_s - 1.0),
        (count_j - gpu.count_j(refreshed_s - STEP_S)) / STEP_S,
        np.full_like(time_s, 1980.0),
    )
    tasks = sorted(engine.ended, key=lambda task: task.number)
    spent_j = np.diff(gpu.count_j(np.array([[one.start_s, one.end_s] for one in engine.log])), axis=1)[:, 0]
    return LoadRecord(0.5, tasks, engine.log, readings), _find_true_j(engine, spent_j.tolist())


def _find_true_j(engine: Engine, spent_j: Sequence[float]) -> dict[int, float]:
    """Return the joules of each task: those of its prompt, and an equal share of each iteration."""
    true_j = dict.fromkeys((task.number for task in engine.ended), 0.0)
    left = {task.number: task.output_tokens - 1 for task in engine.ended}
    writing: list[int] = []
    for one, energy_j in zip(engine.log, spent_j, strict=True):
        if one.reader >= 0:
            true_j[one.reader] += energy_j
            writing.append(one.reader)
        else:
            for number in writing:
                true_j[number] += energy_j / one.tasks
                left[number] -= 1
        writing = [number for number in writing if left[number]]
    return true_j
