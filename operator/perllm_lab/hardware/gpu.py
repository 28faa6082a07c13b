"""The physical laws of one GPU type serving one model."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])
"""One figure, or one for each of many tasks."""


@dataclass(frozen=True, slots=True)
class GpuType:
    """A GPU (or CPU server) serving one model: how fast, how many tasks at once, at what power.

    Attributes:
        key: Name in scenario files.
        product: Value of the node label `nvidia.com/gpu.product`.
        model_name: Device name as DCGM reports it.
        iteration_base_s: Seconds of one decode iteration at batch 0 (a in a + b B).
        iteration_per_task_s: Seconds that each decoding task adds to an iteration (b), at `context_tokens` each.
        slots: Largest decode batch; also the time-slicing replicas the node advertises.
        token_energy_j: Joules per decoded token that do not shrink with the batch (e0 in e0 + e1 / B).
        iteration_energy_j: Joules of an iteration shared by its batch (e1).
        prefill_per_token_s: Seconds per prompt token.
        prefill_power_w: Power while a prompt is processed.
        idle_power_w: Power while neither prefill nor decode runs.
        model_load_s: Seconds to load the model when it is not resident.
        pod_start_s: Seconds from a pod's arrival at its node to the start of its container.
        cpus: CPU cores the node advertises.
        memory_gib: Memory the node advertises, GiB.
        source: Where the figures come from, and which are inferred.
        context_token_s: Seconds that each further token of the context of a decoding task adds to an iteration (c).
        context_tokens: Prompt and answer so far of a task, in the mean, for which b holds.
        prefill_least_s: Seconds that even the shortest prompt takes on a GPU that decodes nothing: all weights are read
            for it, as for an iteration.
    """

    key: str
    product: str
    model_name: str
    iteration_base_s: float
    iteration_per_task_s: float
    slots: int
    token_energy_j: float
    iteration_energy_j: float
    prefill_per_token_s: float
    prefill_power_w: float
    idle_power_w: float
    model_load_s: float
    pod_start_s: float
    cpus: int
    memory_gib: int
    source: str
    context_token_s: float = 0.0
    context_tokens: float = 0.0
    prefill_least_s: float = 0.0

    def task_s(self, context_tokens: Number) -> Number:
        """Seconds that a decoding task of this context adds to an iteration."""
        return self.iteration_per_task_s + self.context_token_s * (context_tokens - self.context_tokens)

    def iteration_s(self, batch: int, context_tokens: float | None = None) -> float:
        """Seconds per decode iteration, in which every one of `batch` tasks gains one token: a + b B.

        Args:
            batch: B.
            context_tokens: of each of them, in the mean; without it that for which b holds.
        """
        context = self.context_tokens if context_tokens is None else context_tokens
        return self.iteration_base_s + self.task_s(context) * batch

    def iteration_j(self, batch: int) -> float:
        """Joules of an iteration of `batch` tasks: e0 B + e1, however long their contexts are."""
        return self.token_energy_j * batch + self.iteration_energy_j

    def prefill_s(self, prompt_tokens: Number) -> Number:
        """Seconds that a prompt adds to what the GPU does, whose iterations read the weights anyway."""
        return self.prefill_per_token_s * prompt_tokens

    def lone_prefill_s(self, prompt_tokens: Number) -> Number:
        """Seconds to process a prompt while nothing decodes."""
        if isinstance(prompt_tokens, np.ndarray):
            read_s: NDArray[np.float64] = np.maximum(self.prefill_s(prompt_tokens), self.prefill_least_s)
            return read_s
        return max(self.prefill_s(prompt_tokens), self.prefill_least_s)
