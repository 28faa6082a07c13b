"""What the simulator predicts for a run of the demonstration, under the conditions that were met there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import fmean, median
from typing import Any

from perllm.api.task_status import RunsAs
from perllm.placement.decision import read_record
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.lab import LabSettings
from perllm_lab.lab_forecast import Figures, LabConditions, forecast
from perllm_lab.policies import build_operator
from perllm_lab.report.results import FleetEnergy, RequestResult

SEEDS = 8


@dataclass(frozen=True, slots=True)
class SchedulerRun:
    """The results of one scheduler."""

    sent_s: Mapping[str, float]
    runs: list[RequestResult]
    fleet: FleetEnergy
    truth: list[dict[str, Any]]
    objects: list[dict[str, Any]]


def predict(name: str, run: SchedulerRun, scenario: Scenario, conditions: LabConditions, *, strict: bool) -> Figures:
    """Return what the simulator predicts for the tasks of a policy of PerLLM, run as they were in the lab."""
    build = partial(build_operator, name, strict=strict)
    return forecast(build, scenario, [one.request for one in run.runs], conditions, seeds=SEEDS)


def find_conditions(run: SchedulerRun, speed: float, runs_as: RunsAs) -> LabConditions:
    """Return how the lab ran the simulated hardware in a run."""
    return LabConditions(speed, find_start_s(run), LabSettings().scrape_interval_s, runs_as, find_receipt_s(run))


def find_start_s(run: SchedulerRun) -> float:
    """Return the seconds from sending a task to the start of its pod, or from its decision to the server.

    The former is the median, since it includes waiting for room. The latter is the mean, since requests wait for room
    before they are placed, and each holds its slot for as long.
    """
    arrivals = {line["task"]: line["created"] for line in run.truth if line["kind"] == "request"}
    if ways_s := _find_spans_s(_read_decisions(run.objects), arrivals):
        return fmean(ways_s)
    starts = {line["task"]: line["started"] for line in run.truth if line["kind"] == "pod"}
    starts_s = _find_spans_s(run.sent_s, starts)
    return median(starts_s) if starts_s else 0.0


def find_receipt_s(run: SchedulerRun) -> float:
    """Return the median of the seconds from sending a served task until the operator saw it; of others it is 0.

    That of pod tasks is part of the time until their start.
    """
    received = {
        one["metadata"]["name"]: status["receivedTime"]
        for one in run.objects
        if (status := one.get("status") or {}).get("runsAs") == RunsAs.REQUEST
    }
    spans_s = _find_spans_s(run.sent_s, received)
    return median(spans_s) if spans_s else 0.0


def _find_spans_s(begins_s: Mapping[str, float], ends: Mapping[str, str]) -> list[float]:
    """Return the seconds from a Unix time to a time in words, for all tasks that have both."""
    return [datetime.fromisoformat(ends[task]).timestamp() - begins_s[task] for task in begins_s.keys() & ends.keys()]


def _read_decisions(tasks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the Unix time at which each served task was placed, by name."""
    statuses = {one["metadata"]["name"]: one.get("status") or {} for one in tasks}
    return {
        name: read_record(status["decisionRecord"]).decided_s
        for name, status in statuses.items()
        if status.get("runsAs") == RunsAs.REQUEST and status.get("decisionRecord")
    }
