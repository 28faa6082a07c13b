"""The same tasks on the simulated GPU of the lab."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import default_rng

from bench.gpu_laws.engine import ServedTask
from bench.gpu_laws.forecasts import LOCAL
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.node import Finished, Job, SimulatedNode


@dataclass(frozen=True, slots=True)
class SimulatedLoad:
    """What became of the tasks.

    Attributes:
        tasks: With their simulated times, in the order of their numbers.
        task_j: Exact energy of each, by number.
        energy_j: Of the GPU, from the first arrival to the last end.
    """

    tasks: Sequence[ServedTask]
    task_j: dict[int, float]
    energy_j: float


def simulate_load(tasks: Sequence[ServedTask], gpu: GpuType) -> SimulatedLoad:
    """Send tasks, in the order of their arrivals, to a simulated GPU at the same times."""
    node = SimulatedNode(gpu, LOCAL, default_rng(0), resident=True, now_s=tasks[0].arrived_s)
    for task in tasks:
        job = Job(str(task.number), task.prompt_tokens, task.output_tokens, input_bytes=0, is_request=True)
        node.admit(job, task.arrived_s)
    finished = list[Finished]()
    while (due_s := node.next_event_s()) is not None:
        finished += node.advance(due_s)
    simulated = sorted((_read(one) for one in finished), key=lambda task: task.number)
    task_j = {int(one.job.key): one.energy_j for one in finished}
    return SimulatedLoad(simulated, task_j, node.energy_j)


def _read(one: Finished) -> ServedTask:
    return ServedTask(
        int(one.job.key),
        one.job.prompt_tokens,
        one.job.output_tokens,
        one.admitted_s,
        one.prefill_s,
        one.decode_s,
        one.finished_s,
    )
