"""The meters of one NVIDIA GPU, read by NVML."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pynvml

from bench.gpu_laws.readings import Reading, Readings


class Meter:
    """Reads one GPU.

    Args:
        index: Of the GPU, as `nvidia-smi` counts.
        clock: Returns seconds.
    """

    def __init__(self, index: int, clock: Callable[[], float]) -> None:
        pynvml.nvmlInit()
        self._gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._clock = clock

    def read(self) -> Reading:
        """Return the counter, the gauges and the clock rate now."""
        (instant,) = pynvml.nvmlDeviceGetFieldValues(self._gpu, [pynvml.NVML_FI_DEV_POWER_INSTANT])
        return Reading(
            self._clock(),
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1e3,
            pynvml.nvmlDeviceGetPowerUsage(self._gpu) / 1e3,
            instant.value.uiVal / 1e3,
            pynvml.nvmlDeviceGetClockInfo(self._gpu, pynvml.NVML_CLOCK_SM),
        )

    def read_temperature_c(self) -> int:
        """Return the temperature of the GPU."""
        return int(pynvml.nvmlDeviceGetTemperature(self._gpu, pynvml.NVML_TEMPERATURE_GPU))

    def count_users(self) -> int:
        """Return how many processes compute on the GPU."""
        return len(pynvml.nvmlDeviceGetComputeRunningProcesses(self._gpu))

    def read_used_bytes(self) -> int:
        """Return how much of its memory is in use."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._gpu).used)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the GPU and its driver."""
        return {
            "gpu": pynvml.nvmlDeviceGetName(self._gpu),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(self._gpu) / 1e3,
            "compute_mode": pynvml.nvmlDeviceGetComputeMode(self._gpu),
            "highest_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(self._gpu, pynvml.NVML_CLOCK_SM),
        }


class Recorder:
    """Reads a meter again and again on a thread of its own, from the beginning of its block to the end."""

    def __init__(self, meter: Meter, *, every_s: float) -> None:
        self._meter = meter
        self._every_s = every_s
        self._rows: list[Reading] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def readings(self) -> Readings:
        """Return all readings so far."""
        return Readings.of(list(self._rows))

    def write(self, file: Path) -> None:
        """Write all readings so far as CSV."""
        lines = [",".join(f"{value:.3f}" for value in row) for row in self._rows]
        file.write_text("\n".join([",".join(Reading._fields), *lines]) + "\n")

    def _record(self) -> None:
        while not self._ended.wait(self._every_s):
            self._rows.append(self._meter.read())
