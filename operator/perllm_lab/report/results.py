"""Results of a replay, computed from the ground truth of the simulated nodes, the same way for every scheduler.

Times are in seconds of the simulated hardware: wall seconds times the lab's speed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from perllm.api.quantities import parse_quantity
from perllm.cluster.times import parse_time_s
from perllm_lab.workload.requests import Request

RUN_KINDS = ("pod", "request")
"""Lines of the ground truth about a run: of a pod, or of a request to a model server."""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The true outcome of one request; one that never completed has no times and no energy."""

    request: Request
    tier: str | None
    latency_s: float | None
    energy_j: float | None

    @property
    def met(self) -> bool:
        """Whether it was complete by its deadline."""
        return self.latency_s is not None and self.latency_s <= self.request.deadline_s


@dataclass(frozen=True, slots=True)
class FleetEnergy:
    """Energy of the whole fleet over a window, in joules and simulated seconds."""

    energy_j: float
    idle_w: float
    window_s: float

    def over(self, window_s: float) -> float:
        """Return the energy over a longer window, whose remainder the fleet is idle."""
        return self.energy_j + self.idle_w * max(window_s - self.window_s, 0.0)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a set of runs.

    Attributes:
        tasks: how many were asked for.
        met_share: share complete by the deadline.
        token_met_share: the same weighted by tokens, because dropping long tasks would flatter the plain share.
        latency_p50_s: median latency of the complete ones.
        latency_p95_s: their 95th percentile.
        energy_j: mean energy of a complete task, its share of the node while it ran.
    """

    tasks: int
    met_share: float
    token_met_share: float
    latency_p50_s: float
    latency_p95_s: float
    energy_j: float


def join_runs(
    requests: Sequence[Request], created_s: Mapping[str, float], truth: Iterable[Mapping[str, Any]], speed: float
) -> list[RequestResult]:
    """Return the outcome of each request.

    Args:
        requests: as they were asked for.
        created_s: Unix time at which each was sent, by name.
        truth: the lines of the simulated nodes.
        speed: of the lab.
    """
    done: dict[str, Mapping[str, Any]] = {}
    for line in truth:
        if line.get("kind") in RUN_KINDS and line["outcome"] == "Succeeded":
            done[line["task"] or line["pod"]] = line
    return [_join(request, created_s[request.name], done.get(request.name), speed) for request in requests]


def summarize(runs: Sequence[RequestResult]) -> Summary | None:
    """Return the figures of `runs`; None when there are none."""
    if not runs:
        return None
    latencies_s = [run.latency_s for run in runs if run.latency_s is not None]
    energies_j = [run.energy_j for run in runs if run.energy_j is not None]
    tokens = [run.request.prompt_tokens + run.request.output_tokens for run in runs]
    met_tokens = sum(count for run, count in zip(runs, tokens, strict=True) if run.met)
    p50_s, p95_s = np.quantile(latencies_s, [0.5, 0.95]).tolist() if latencies_s else (float("nan"), float("nan"))
    return Summary(
        tasks=len(runs),
        met_share=sum(run.met for run in runs) / len(runs),
        token_met_share=met_tokens / sum(tokens),
        latency_p50_s=p50_s,
        latency_p95_s=p95_s,
        energy_j=fmean(energies_j) if energies_j else float("nan"),
    )


def by_tier(runs: Iterable[RequestResult]) -> dict[str, list[RequestResult]]:
    """Return the complete runs by the tier they ran on."""
    tiers: dict[str, list[RequestResult]] = defaultdict(list)
    for run in runs:
        if run.tier is not None:
            tiers[run.tier].append(run)
    return dict(tiers)


def fleet_energy(before: Mapping[str, Any], after: Mapping[str, Any], idle_w: float) -> FleetEnergy:
    """Return the fleet's energy between two answers of the simulated nodes."""
    energy_j = sum(node["energy_j"] for node in after["nodes"].values())
    energy_j -= sum(node["energy_j"] for node in before["nodes"].values())
    return FleetEnergy(energy_j, idle_w, after["simulated_s"] - before["simulated_s"])


@dataclass(frozen=True, slots=True)
class EnergyErrors:
    """How far the energy that PerLLM measured lies from the truth.

    Attributes:
        compared: tasks with a measured energy.
        missing: tasks without.
        median: median of |measured - true| / true.
        p90: its 90th percentile.
        bias: sum of measured over sum of true, minus one.
    """

    compared: int
    missing: int
    median: float
    p90: float
    bias: float


def energy_errors(
    tasks: Iterable[Mapping[str, Any]], truth: Iterable[Mapping[str, Any]], transmission_j_per_bit: Mapping[str, float]
) -> EnergyErrors:
    """Compare the measured energy of finished tasks, net of transmission, with the ground truth."""
    true_j = {line["task"]: line["energy_j"] for line in truth if line.get("kind") in RUN_KINDS and line["energy_j"]}
    pairs, missing = [], 0
    for task in tasks:
        status, name = task.get("status") or {}, task["metadata"]["name"]
        if status.get("phase") != "Succeeded" or name not in true_j:
            continue
        measured_j = (status.get("observed") or {}).get("energyJoules")
        if measured_j is None:
            missing += 1
            continue
        transmission_j = parse_quantity(task["spec"]["inputBytes"]) * 8 * transmission_j_per_bit[status["tier"]]
        pairs.append((measured_j - transmission_j, true_j[name]))
    return judge_energies(pairs, missing)


def judge_energies(pairs: Sequence[tuple[float, float]], missing: int = 0) -> EnergyErrors:
    """Return how far measured energies lie from true ones, given as pairs of both."""
    if not pairs:
        return EnergyErrors(0, missing, float("nan"), float("nan"), float("nan"))
    relative = [abs(measured - real) / real for measured, real in pairs]
    bias = sum(measured for measured, _ in pairs) / sum(real for _, real in pairs) - 1
    return EnergyErrors(len(pairs), missing, median(relative), float(np.quantile(relative, 0.9)), bias)


def _join(request: Request, created_s: float, line: Mapping[str, Any] | None, speed: float) -> RequestResult:
    if line is None:
        return RequestResult(request, None, None, None)
    finished_s = parse_time_s(line["finished"])
    latency_s = None if finished_s is None else (finished_s - created_s) * speed
    return RequestResult(request, line["tier"], latency_s, line["energy_j"])
