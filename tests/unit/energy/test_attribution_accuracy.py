"""How true the attribution is on nodes that prefill one task at a time and decode the others together."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from statistics import mean, median

import pytest

from perllm.energy.attribution import Attribution, Window, attribute, estimate_idle_power_w
from perllm.energy.devices import measure_counter
from perllm.energy.series import TimeSeries


@dataclass(frozen=True)
class Gpu:
    """Iteration time ``a + b * batch``, energy of a decoded token ``e0 + e1 / batch``."""

    iteration_s: float
    iteration_per_task_s: float
    token_j: float
    iteration_j: float
    prefill_token_s: float
    prefill_w: float
    idle_w: float


@dataclass
class Task:
    prompt: int
    remaining: float
    arrival_s: float
    start_s: float = 0.0
    energy_j: float = 0.0
    end_s: float | None = None


@dataclass
class Node:
    gpu: Gpu
    now_s: float = 0.0
    counter_j: float = 0.0
    decoding: list[Task] = field(default_factory=list)
    waiting: list[Task] = field(default_factory=list)

    def step(self, length_s: float) -> None:
        self.now_s += length_s
        if self.waiting:
            self._prefill(self.waiting[0], length_s)
        elif self.decoding:
            self._decode(length_s)
        else:
            self.counter_j += self.gpu.idle_w * length_s

    def _prefill(self, task: Task, length_s: float) -> None:
        self.counter_j += self.gpu.prefill_w * length_s
        task.energy_j += self.gpu.prefill_w * length_s
        task.start_s = task.start_s or self.now_s - length_s
        if self.now_s - task.start_s >= task.prompt * self.gpu.prefill_token_s:
            self.decoding.append(self.waiting.pop(0))

    def _decode(self, length_s: float) -> None:
        batch = len(self.decoding)
        iterations = length_s / (self.gpu.iteration_s + self.gpu.iteration_per_task_s * batch)
        each_j = iterations * (self.gpu.token_j + self.gpu.iteration_j / batch)
        self.counter_j += each_j * batch
        for task in self.decoding:
            task.energy_j += each_j
            task.remaining -= iterations
        for task in [task for task in self.decoding if task.remaining <= 0]:
            task.end_s = self.now_s
            self.decoding.remove(task)


@dataclass(frozen=True)
class Load:
    gpu: Gpu
    arrivals_per_s: float
    mean_tokens: int


T4 = Gpu(0.056, 0.003, 0.33, 6.2, 0.0008, 110, 40)
RTX_4090 = Gpu(0.0182, 0.00035, 0.16, 7.2, 0.00011, 480, 80)
A100 = Gpu(0.0109, 0.000124, 0.084, 5.2, 0.0001, 550, 180)
LOADS = {
    "T4, a few tasks": Load(T4, 0.15, 60),
    "RTX 4090, a few tasks": Load(RTX_4090, 0.4, 200),
    "RTX 4090, busy": Load(RTX_4090, 1.2, 200),
    "A100, busy": Load(A100, 2.0, 250),
}
STEP_S = 0.005
LENGTH_S = 600.0
MAX_TASKS = 8


def arrivals(load: Load, random: Random) -> Iterator[Task]:
    time_s = random.expovariate(load.arrivals_per_s)
    while time_s < LENGTH_S - 60:
        yield Task(random.randint(50, 1000), load.mean_tokens * random.lognormvariate(-0.18, 0.6), time_s)
        time_s += random.expovariate(load.arrivals_per_s)


def run(load: Load, sample_every_s: float) -> tuple[list[Task], list[tuple[float, float]]]:
    random = Random(7)
    node, pending, samples = Node(load.gpu), list(arrivals(load, random)), []
    tasks = list(pending)
    next_sample_s = random.random() * sample_every_s
    while node.now_s < LENGTH_S:
        while pending and pending[0].arrival_s <= node.now_s and len(node.waiting) + len(node.decoding) < MAX_TASKS:
            node.waiting.append(pending.pop(0))
        if node.now_s >= next_sample_s:
            samples.append((node.now_s, node.counter_j))
            next_sample_s += sample_every_s
        node.step(STEP_S)
    return [task for task in tasks if task.end_s is not None], samples


def judge(load: Load, sample_every_s: float) -> tuple[list[float], float, list[Attribution]]:
    """Return the relative errors, the bias of the sum and what was attributed."""
    tasks, samples = run(load, sample_every_s)
    windows = [Window(str(index), task.start_s, task.end_s or 0.0) for index, task in enumerate(tasks)]
    intervals = measure_counter(TimeSeries(*(array("d", one) for one in zip(*samples, strict=True))), 2000)
    found = attribute(intervals, windows, estimate_idle_power_w(intervals, windows))
    pairs = [(found[str(index)].energy_j, task.energy_j) for index, task in enumerate(tasks)]
    known = [(estimate, true) for estimate, true in pairs if estimate is not None]
    assert len(known) > 0.95 * len(tasks)
    bias = sum(estimate for estimate, _ in known) / sum(true for _, true in known) - 1
    return [estimate / true - 1 for estimate, true in known], bias, list(found.values())


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("sample_every_s", [1.0, 15.0])
def test_energy_is_attributed_to_within_a_few_percent(name: str, sample_every_s: float) -> None:
    errors, bias, _ = judge(LOADS[name], sample_every_s)

    assert median(abs(error) for error in errors) < 0.10
    assert abs(mean(errors)) < 0.10
    assert abs(bias) < 0.05
