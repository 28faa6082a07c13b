"""What capacity and deadlines allow at most: no policy has more tasks in time, or writes more tokens, in a run.

    maximise   sum over tasks c and kinds of GPU g of value[c] x[c, g]
    subject to sum over g of x[c, g]           <= 1                    each task counts once
               sum over c of work[c, g] x[c, g] <= GPUs of g * seconds   GPU seconds

`work` is the least number of GPU seconds of a task: prefill + answer (a / B + b), at the largest mean batch B, at most
the slots, at which it can be in time if pod start, round trip and transfer are at their best; since a / B is convex, no
sequence of batches of that mean takes less. A kind on which it would be late even alone is no option.

Every price L[g] >= 0 of a GPU second gives an upper bound on the maximum (weak duality), so no solver is needed:

    sum over g of L[g] GPUs[g] seconds  +  sum over c of max(0, max over g of (value[c] - L[g] work[c, g]))

Prices rise where more is asked for than there is, and fall elsewhere; the least bound on the way is returned.

It is loose: GPU seconds count whenever they are, tasks are divided and moved without loss and do not delay each other,
and every batch is as good as the task allows. So it says what a factor cannot be, not what a policy could reach.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import VARIATION, LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.result import Floats
from perllm_lab.workload.requests import Request

STEPS = 300
SAFETY = 1e-6
"""Relative; covers rounding where a task just fits."""


@dataclass(frozen=True, slots=True)
class CapacityLimit:
    """The most that any policy can reach of the given requests.

    Attributes:
        tasks_in_time: how many of them are complete by their deadline.
        output_tokens: tokens of those that are complete, in time or late.
    """

    tasks_in_time: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class _Tasks:
    """Shape (n,) each."""

    time_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    input_bits: Floats


def limit_capacity(
    nodes: Sequence[NodeSpec],
    requests: Sequence[Request],
    seconds: float,
    *,
    best_speed: float = 1.0,
    best_bandwidth: float = 1.0,
) -> CapacityLimit:
    """Return what is possible at most with the requests in so many seconds.

    Args:
        nodes: all nodes; those that join later count from the start.
        requests: those that count.
        seconds: from the first arrival to the last moment at which one of them may be worked on.
        best_speed: of the GPUs in the run, as a factor of nominal.
        best_bandwidth: of the uplinks, as a factor of nominal; random variation comes on top.
    """
    kinds: Counter[tuple[GpuType, LinkType]] = Counter()
    for node in nodes:
        kinds[node.gpu, node.link] += node.gpus
    tasks = _read(requests)
    gpu_s = np.array([count * seconds * best_speed for count in kinds.values()])
    in_time = np.stack(
        [_find_work(gpu, _improve(link, best_bandwidth), tasks, best_speed) for gpu, link in kinds], axis=1
    )
    ever = np.stack([_find_full_work(gpu, tasks) for gpu, _ in kinds], axis=1)
    return CapacityLimit(
        tasks_in_time=bound_value(np.ones(len(requests)), in_time, gpu_s),
        output_tokens=bound_value(tasks.output_tokens, ever, gpu_s),
    )


def bound_value(value: Floats, work_s: Floats, gpu_s: Floats) -> float:
    """Return an upper bound on the value that fits.

    Args:
        value: of each task, shape (n,).
        work_s: GPU seconds of each task on each kind, inf where it is no option, shape (n, g).
        gpu_s: GPU seconds of each kind, shape (g,).
    """
    possible = np.isfinite(work_s)
    least = float(value[possible.any(axis=1)].sum())
    if not least:
        return 0.0
    finite_s = np.where(possible, work_s, 0.0)
    usual_s = finite_s.sum(axis=0) / np.maximum(possible.sum(axis=0), 1)
    price = value.mean() / np.maximum(usual_s, SAFETY)
    for step in range(STEPS):
        gain = np.where(possible, value[:, None] - price * finite_s, 0.0)
        kind = gain.argmax(axis=1)
        taken = gain.max(axis=1) > 0.0
        least = min(least, float(price @ gpu_s + gain.max(axis=1).sum(where=taken)))
        used_s = np.bincount(kind[taken], finite_s[np.flatnonzero(taken), kind[taken]], len(gpu_s))
        price = price * np.exp(np.clip(used_s / gpu_s - 1.0, -1.0, 1.0) / np.sqrt(step + 1.0))
    return least * (1.0 + SAFETY)


def _read(requests: Sequence[Request]) -> _Tasks:
    return _Tasks(
        np.array([request.deadline_s for request in requests]),
        np.array([request.prompt_tokens for request in requests], dtype=np.float64),
        np.array([request.output_tokens for request in requests], dtype=np.float64),
        np.array([request.input_bytes * 8.0 for request in requests]),
    )


def _improve(link: LinkType, factor: float) -> LinkType:
    return replace(link, bandwidth_bps=link.bandwidth_bps * factor * (1.0 + VARIATION))


def _find_work(gpu: GpuType, link: LinkType, tasks: _Tasks, best_speed: float) -> Floats:
    """Return the least GPU seconds at nominal speed of each task if it is in time; inf where it cannot be."""
    opening_s = gpu.pod_start_s + link.rtt_s + tasks.input_bits / link.bandwidth_bps
    prefill_s = gpu.prefill_s(tasks.prompt_tokens)
    token_s = ((tasks.time_s - opening_s) * best_speed - prefill_s) / np.maximum(tasks.output_tokens, 1.0)
    # The others of its batch could be about to begin, with next to no context.
    least_task_s, own_task_s = max(gpu.task_s(0.0), SAFETY * gpu.iteration_base_s), gpu.task_s(_mean_context(tasks))
    batch = np.clip((token_s - gpu.iteration_base_s) / least_task_s, 1.0, gpu.slots)
    work_s = prefill_s + tasks.output_tokens * (gpu.iteration_base_s / batch + own_task_s)
    return np.where(token_s >= (gpu.iteration_base_s + own_task_s) * (1.0 - SAFETY), work_s, np.inf)


def _find_full_work(gpu: GpuType, tasks: _Tasks) -> Floats:
    token_s = gpu.iteration_base_s / gpu.slots + gpu.task_s(_mean_context(tasks))
    return gpu.prefill_s(tasks.prompt_tokens) + tasks.output_tokens * token_s


def _mean_context(tasks: _Tasks) -> Floats:
    """Return the context of each task in the mean of the time in which it writes."""
    return tasks.prompt_tokens + tasks.output_tokens / 2
