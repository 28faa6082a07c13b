"""A bill: what each payer's tasks took, and what became of the rest of the measured energy.

    measured = inference of all payers + foreign requests + idle nodes + unattributed

The energy of transmission is an estimate and no part of what nodes measure.
"""

from dataclasses import dataclass

from perllm.api.task_status import EnergyQuality
from perllm.energy.bill import INFERENCE, TRANSMISSION
from perllm.reporting.increases import Increases, Past, Period


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """What the tasks of one payer took.

    Attributes:
        payer: a namespace, or a value of the label.
        tasks: tasks that ended, however they did.
        met: of them, those that met their deadline.
        judged: of them, those that met or missed it; the others were deleted before their end.
        prompt_tokens: tokens read, as far as they were reported.
        output_tokens: tokens written, as far as they were reported.
        inference_j: joules on nodes, those of failed attempts included.
        transmission_j: estimated joules of moving payloads.
        measurements: tasks by the quality of their energy.
    """

    payer: str
    tasks: float
    met: float
    judged: float
    prompt_tokens: float
    output_tokens: float
    inference_j: float
    transmission_j: float
    measurements: dict[str, float]

    def share(self, quality: EnergyQuality) -> float | None:
        """Return the share of the measurements that have a quality; None without any."""
        count = sum(self.measurements.values())
        return self.measurements.get(quality.value, 0.0) / count if count else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The bill of a cluster.

    Attributes:
        period: what it is for.
        by: what the payers are: namespace or label.
        lines: the payers, the greatest energy first.
        foreign_j: joules of requests that are not PerLLM's.
        idle_j: joules of nodes without tasks.
        measured_j: joules that nodes were measured to use.
    """

    period: Period
    by: str
    lines: tuple[BillLine, ...]
    foreign_j: float
    idle_j: float
    measured_j: float

    @property
    def unattributed_j(self) -> float:
        """Measured joules that nothing is known of; below 0 if more was attributed than measured."""
        return self.measured_j - self.foreign_j - self.idle_j - sum(line.inference_j for line in self.lines)


@dataclass(frozen=True, slots=True)
class _Counters:
    """The counters of all payers."""

    joules: Increases
    tokens: Increases
    tasks: Increases
    deadlines: Increases
    measurements: Increases


async def read_bill(past: Past, by: str) -> Bill:
    """Return the bill of a period.

    Raises:
        TelemetryError, ApiError: Prometheus does not answer.
    """
    counters = _Counters(
        joules=await past.read_increases("perllm_bill_joules", by=by),
        tokens=await past.read_increases("perllm_bill_tokens", by=by),
        tasks=await past.read_increases("perllm_bill_tasks", by=by),
        deadlines=await past.read_increases("perllm_bill_deadlines", by=by),
        measurements=await past.read_increases("perllm_bill_measurements", by=by),
    )
    parts = await past.read_increases("perllm_node_energy_part_joules")
    measured = await past.read_increases("perllm_node_energy_joules")
    payers = counters.joules.sum_by("payer").keys() | counters.tasks.sum_by("payer").keys()
    lines = [_read_line(counters, payer) for payer in sorted(payers)]
    charged = [line for line in lines if line.tasks or line.inference_j]
    return Bill(
        period=past.period,
        by=by,
        lines=tuple(sorted(charged, key=lambda line: -line.inference_j)),
        foreign_j=parts.total(part="foreign"),
        idle_j=parts.total(part="idle"),
        measured_j=measured.total(),
    )


def _read_line(counters: _Counters, payer: str) -> BillLine:
    deadlines = counters.deadlines.sum_by("met", payer=payer)
    return BillLine(
        payer=payer,
        tasks=counters.tasks.total(payer=payer),
        met=deadlines.get("true", 0.0),
        judged=sum(deadlines.values()),
        prompt_tokens=counters.tokens.total(payer=payer, kind="prompt"),
        output_tokens=counters.tokens.total(payer=payer, kind="output"),
        inference_j=counters.joules.total(payer=payer, part=INFERENCE),
        transmission_j=counters.joules.total(payer=payer, part=TRANSMISSION),
        measurements=counters.measurements.sum_by("quality", payer=payer),
    )
