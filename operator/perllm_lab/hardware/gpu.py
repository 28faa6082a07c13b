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
        iteration_per_task_s: Seconds that each decoding task adds to an iteration (b).
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

    def iteration_s(self, batch: int) -> float:
        """Seconds per decode iteration, in which every one of `batch` tasks gains one token: a + b B."""
        return self.iteration_base_s + self.iteration_per_task_s * batch

    def decode_power_w(self, batch: int) -> float:
        """Power while `batch` tasks decode: B tokens an iteration at e0 + e1 / B joules each."""
        return (self.token_energy_j * batch + self.iteration_energy_j) / self.iteration_s(batch)

    def prefill_s(self, prompt_tokens: Number) -> Number:
        """Seconds to process a prompt."""
        return self.prefill_per_token_s * prompt_tokens
