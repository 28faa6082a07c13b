"""The capacity of a fleet, and arrivals that offer a share of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.workload.arrivals import Arrival


def capacity_per_s(nodes: Sequence[NodeSpec], arrivals: Sequence[Arrival]) -> float:
    """Tasks per second that the nodes complete when every decode batch is full: the sum over GPUs of 1 / mean work.

    The work of a task is its prefill plus its share of full iterations, with its true length. Neither nodes that
    join later count nor events: they happen to a fleet of known capacity.

    Raises:
        ValueError: there are no arrivals.
    """
    if not arrivals:
        raise ValueError("the capacity of a fleet depends on the arrivals; there are none")
    prompt = fmean(arrival.prompt_tokens for arrival in arrivals)
    output = fmean(arrival.output_tokens for arrival in arrivals)
    gpus: Counter[GpuType] = Counter()
    for node in nodes:
        if node.joins_at == 0.0:
            gpus[node.gpu] += node.gpus
    return sum(count / work_s(gpu, prompt, output) for gpu, count in gpus.items())


def work_s(gpu: GpuType, prompt_tokens: float, output_tokens: float) -> float:
    """Seconds of a GPU that a task takes in a full batch of such tasks."""
    iteration_s = gpu.iteration_s(gpu.slots, prompt_tokens + output_tokens / 2)
    return gpu.prefill_s(prompt_tokens) + output_tokens * iteration_s / gpu.slots


def scale_arrivals(arrivals: Sequence[Arrival], rate_per_s: float) -> list[Arrival]:
    """Scales time so that `rate_per_s` requests arrive per second on average; lengths stay."""
    span_s = arrivals[-1].at_s - arrivals[0].at_s if arrivals else 0.0
    if span_s <= 0.0:
        return list(arrivals)
    factor = (len(arrivals) - 1) / span_s / rate_per_s
    return [replace(arrival, at_s=arrival.at_s * factor) for arrival in arrivals]
