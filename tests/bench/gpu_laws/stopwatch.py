"""Time and energy of work that is repeated until its figures are steady."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.gpu_laws.meter import Meter, Recorder
from bench.gpu_laws.readings import mean_power_w

WARM_S = 1.0
CHUNK_S = 0.25
"""The host waits for the GPU this often, so that it launches far enough ahead and the spread can be seen."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What one repetition takes.

    Attributes:
        once_s: Seconds, mean.
        lowest_s: Seconds, in the fastest quarter of a second.
        highest_s: Seconds, in the slowest.
        power_w: By the counter of energy.
        energy_j: Joules, by the same.
        gauge_w: Mean of the averaging gauge over the second half of the time.
        clock_mhz: Mean.
        temperature_c: At the end.
        count: Repetitions.
        start_s: When they began, by the clock of the readings.
        end_s: When they ended.
    """

    once_s: float
    lowest_s: float
    highest_s: float
    power_w: float
    energy_j: float
    gauge_w: float
    clock_mhz: float
    temperature_c: int
    count: int
    start_s: float
    end_s: float


class Stopwatch:
    """Repeats work on the GPU.

    Args:
        recorder: Of the GPU; it is recording.
        meter: Of the same GPU.
        clock: Returns seconds; that of the meter.
        for_s: How long work is measured.
    """

    def __init__(self, recorder: Recorder, meter: Meter, clock: Callable[[], float], *, for_s: float) -> None:
        self.recorder = recorder
        self.clock = clock
        self._meter = meter
        self._for_s = for_s

    def measure(self, launch: Callable[[], object]) -> Steady:
        """Repeat what `launch` launches, without waiting for it each time; first for a while to warm up."""
        warm_counts, warm_spans_s = self.repeat(launch, for_s=WARM_S, chunk=1)
        chunk = max(1, round(CHUNK_S * sum(warm_counts) / sum(warm_spans_s)))
        start_s = self.clock()
        counts, spans_s = self.repeat(launch, for_s=self._for_s, chunk=chunk)
        end_s = self.clock()
        once_s = sum(spans_s) / sum(counts)
        each_s = [span_s / count for span_s, count in zip(spans_s, counts, strict=True)]
        readings = self.recorder.readings()
        window = readings.between(start_s, end_s)
        power_w = mean_power_w(readings, start_s, end_s)
        return Steady(
            once_s=once_s,
            lowest_s=min(each_s),
            highest_s=max(each_s),
            power_w=power_w,
            energy_j=power_w * once_s,
            gauge_w=float(readings.between((start_s + end_s) / 2, end_s).average_w.mean()),
            clock_mhz=float(window.clock_mhz.mean()),
            temperature_c=self._meter.read_temperature_c(),
            count=sum(counts),
            start_s=start_s,
            end_s=end_s,
        )

    def repeat(self, launch: Callable[[], object], *, for_s: float, chunk: int) -> tuple[list[int], list[float]]:
        """Launch chunks of work until the time is over; returns how many each had, and the seconds it took."""
        counts, spans_s = [], []
        torch.cuda.synchronize()
        start_s = last_s = self.clock()
        while last_s - start_s < for_s:
            for _ in range(chunk):
                launch()
            torch.cuda.synchronize()
            now_s = self.clock()
            counts.append(chunk)
            spans_s.append(now_s - last_s)
            last_s = now_s
        return counts, spans_s

    def rest(self, for_s: float) -> float:
        """Do nothing, and return the mean power by the counter over the second half of the time."""
        start_s = self.clock()
        time.sleep(for_s)
        return mean_power_w(self.recorder.readings(), start_s + for_s / 2, self.clock())
