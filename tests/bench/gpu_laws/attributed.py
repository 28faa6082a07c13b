"""What PerLLM would have attributed to the tasks of a record, by its own code, had it scraped these meters."""

import math
from dataclasses import dataclass

import numpy as np

from bench.gpu_laws.load_record import LoadRecord
from perllm.energy.accounts import divide_energy
from perllm.energy.attribution import attribute, count_present, estimate_idle_power_w
from perllm.energy.history import EnergyHistory
from perllm.energy.meters import Meter
from perllm.energy.reading_power import observe_reading_power
from perllm.energy.spans import Span, observe_usage, weigh

COUNTER, GAUGE = "energy_j", "average_w"
MAX_POWER_W = 5000.0
STALE_SCRAPES = 6
NODE, DEVICE = "node", "gpu"


@dataclass(frozen=True, slots=True)
class Attributed:
    """What was attributed.

    Attributes:
        task_j: By number of the task; those whose energy is known.
        idle_w: Idle power that was assumed.
        measured_j: What the node was measured to use, from the first to the last scrape.
        tasks_j: Charged to all tasks.
        idle_j: Charged to none.
    """

    task_j: dict[int, float]
    idle_w: float | None
    measured_j: float
    tasks_j: float
    idle_j: float


def attribute_energy(record: LoadRecord, source: str, every_s: float, phase: float = 0.3) -> Attributed:
    """Return what the tasks of a record took as it appears at scrapes of the counter or of the gauge.

    Args:
        record: The record.
        source: `COUNTER` or `GAUGE`.
        every_s: Interval of the scrapes.
        phase: Where the first scrape falls, as a share of an interval.
    """
    spans = [
        Span(
            str(task.number),
            task.arrived_s,
            task.ended_s,
            task.prompt_tokens,
            task.output_tokens,
            task.first_token_s if task.first_token_s < task.ended_s else None,
        )
        for task in record.tasks
    ]
    usage = observe_usage(spans, 1.0)
    windows = weigh(spans, usage)
    history = scrape(record, source, every_s, phase)
    intervals = history.intervals(NODE, presence=lambda: count_present(windows))
    idle_w = estimate_idle_power_w(intervals, windows)
    usage = observe_reading_power(usage, spans, intervals, idle_w, count_present(windows))
    windows = weigh(spans, usage)
    found = attribute(intervals, windows, idle_w)
    parts = divide_energy(intervals, windows, [], idle_w)
    task_j = {int(number): one.energy_j for number, one in found.items() if one.energy_j is not None}
    return Attributed(task_j, idle_w, parts.measured_j, parts.tasks_j, parts.idle_j)


def scrape(record: LoadRecord, source: str, every_s: float, phase: float) -> EnergyHistory:
    """Return what an exporter shows that is scraped regularly; a scrape sees the reading before it."""
    readings = record.readings
    scraped_s = np.arange(readings.time_s[0] + phase * every_s, readings.time_s[-1], every_s)
    seen = np.clip(np.searchsorted(readings.time_s, scraped_s, side="right") - 1, 0, None)
    meter = Meter.build(source, "gpu", MAX_POWER_W, length_s=math.inf)
    kept = meter.counters if source == COUNTER else meter.gauges
    samples = zip(scraped_s.tolist(), getattr(readings, source)[seen].tolist(), strict=True)
    kept.merge(NODE, DEVICE, samples, float(scraped_s[-1]))
    return EnergyHistory([meter], absent_after_s=STALE_SCRAPES * every_s)
