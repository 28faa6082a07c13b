"""A node that prefills one task at a time and decodes the others together, with the energy of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf
from random import Random

from perllm.energy.attribution import Window, count_present, estimate_idle_power_w
from perllm.energy.history import EnergyHistory
from perllm.energy.intervals import Intervals
from perllm.energy.meters import Meter
from perllm.energy.reading_power import observe_reading_power
from perllm.energy.spans import Span, observe_usage, weigh


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
    output: float
    arrival_s: float
    way_s: float = 0.0
    patience_s: float = inf
    start_s: float = 0.0
    reading_s: float = 0.0
    first_token_s: float = 0.0
    energy_j: float = 0.0
    end_s: float | None = None
    was_ended: bool = False
    decoded: float = 0.0


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
        task.reading_s += length_s
        if task.reading_s >= task.prompt * self.gpu.prefill_token_s:
            task.first_token_s = self.now_s
            self.decoding.append(self.waiting.pop(0))

    def _decode(self, length_s: float) -> None:
        batch = len(self.decoding)
        iterations = length_s / (self.gpu.iteration_s + self.gpu.iteration_per_task_s * batch)
        each_j = iterations * (self.gpu.token_j + self.gpu.iteration_j / batch)
        self.counter_j += each_j * batch
        for task in self.decoding:
            task.energy_j += each_j
            task.decoded += iterations
        for task in [task for task in self.decoding if task.decoded >= task.output]:
            task.end_s = self.now_s
            self.decoding.remove(task)

    def end_late(self) -> None:
        for tasks in (self.waiting, self.decoding):
            for task in [task for task in tasks if self.now_s >= task.start_s + task.patience_s]:
                task.end_s, task.was_ended = self.now_s, True
                tasks.remove(task)


@dataclass(frozen=True)
class Load:
    gpu: Gpu
    arrivals_per_s: float
    mean_tokens: int
    longest_prompt: int = 1000
    way_s: float = 0.0
    patience_s: float = inf


T4 = Gpu(0.056, 0.003, 0.33, 6.2, 0.0008, 110, 40)
RTX_4090 = Gpu(0.0182, 0.00035, 0.16, 7.2, 0.00011, 480, 80)
V100 = Gpu(0.023, 0.0006, 0.20, 5.6, 0.0004, 320, 70)
A100 = Gpu(0.0109, 0.000124, 0.084, 5.2, 0.0001, 550, 180)
LOADS = {
    "T4, a few tasks": Load(T4, 0.15, 60),
    "RTX 4090, a few tasks": Load(RTX_4090, 0.4, 200),
    "RTX 4090, busy": Load(RTX_4090, 1.2, 200),
    "A100, busy": Load(A100, 2.0, 250),
    "V100, long prompts": Load(V100, 0.5, 100, longest_prompt=4000),
    "A100, some are ended": Load(A100, 2.0, 250, way_s=0.3, patience_s=5.0),
}
STEP_S = 0.005
LENGTH_S = 600.0
MAX_TASKS = 8


def arrivals(load: Load, random: Random) -> Iterator[Task]:
    time_s = random.expovariate(load.arrivals_per_s)
    while time_s < LENGTH_S - 60:
        yield Task(
            random.randint(50, load.longest_prompt),
            load.mean_tokens * random.lognormvariate(-0.18, 0.6),
            time_s,
            way_s=load.way_s and random.uniform(0.0, load.way_s),
            patience_s=load.patience_s,
        )
        time_s += random.expovariate(load.arrivals_per_s)


@cache
def run(name: str) -> tuple[list[Task], list[tuple[float, float, float]]]:
    """Return the finished tasks, and at each step the time, the counter and the power."""
    load, random = LOADS[name], Random(7)
    node, pending, trace = Node(load.gpu), list(arrivals(load, random)), []
    tasks = list(pending)
    while node.now_s < LENGTH_S:
        while pending and pending[0].arrival_s <= node.now_s and len(node.waiting) + len(node.decoding) < MAX_TASKS:
            task = pending.pop(0)
            task.start_s = node.now_s - task.way_s
            node.waiting.append(task)
        before_j = node.counter_j
        node.step(STEP_S)
        node.end_late()
        trace.append((node.now_s, node.counter_j, (node.counter_j - before_j) / STEP_S))
    return [task for task in tasks if task.end_s is not None], trace


def sample(name: str, kind: str, every_s: float) -> EnergyHistory:
    """Return the history of node n as a counter or a power gauge shows it, with a sample every ``every_s`` seconds."""
    _, trace = run(name)
    meter = Meter.build("m", "gpu", 2000.0, length_s=inf)
    for time_s, energy_j, power_w in trace[int(0.3 * every_s / STEP_S) :: int(every_s / STEP_S)]:
        history, value = (meter.counters, energy_j) if kind == "counter" else (meter.gauges, power_w)
        history.merge("n", "gpu", [(time_s, value)], time_s)
    return EnergyHistory([meter], absent_after_s=2 * every_s + 1)


def weigh_all(spans: Sequence[Span]) -> list[Window]:
    """Return the spans of all tasks of a node as windows, before it is known what power reading takes."""
    return weigh(spans, observe_usage(spans, 1.0))


def measure(spans: Sequence[Span], history: EnergyHistory) -> tuple[Intervals, list[Window], float | None]:
    """Return the energy of node n, the windows of its tasks and its idle power, as their settlement does."""
    first = weigh_all(spans)
    presence = count_present(first)
    intervals = history.intervals("n", presence=lambda: presence)
    idle_w = estimate_idle_power_w(intervals, first)
    usage = observe_reading_power(observe_usage(spans, 1.0), spans, intervals, idle_w, presence)
    return intervals, weigh(spans, usage), idle_w
