"""What the simulator predicts for a replay in the lab, and the same figures of what really happened there.

The simulator runs the nodes as the lab does, `speed` times as fast, in real seconds, so that the operator's
assumptions hold equally in both. Its links vary by the same law, with other random numbers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.random import default_rng

from perllm.api.task import Tier
from perllm.api.task_status import RunsAs
from perllm.energy.settlement import SETTLING_S
from perllm.settings.nodes import NodeSettings
from perllm_lab.hardware.scenario import NodeSpec, Scenario
from perllm_lab.report.results import RequestResult
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all requests of a replay.

    Attributes:
        hit_share: share of the requests that were complete by their deadline.
        energy_j: joules per request in time: true share of the nodes' energy of all runs, including those that were
            late or terminated, and of moving their inputs.
        hit_scatter: standard deviation of the share in several runs; None of one run.
        energy_scatter_j: the same of the joules.
    """

    hit_share: float
    energy_j: float
    hit_scatter: float | None = None
    energy_scatter_j: float | None = None

    def __str__(self) -> str:
        share, energy = f"{self.hit_share:6.1%}", f"{self.energy_j:6.1f}"
        if self.hit_scatter is not None and self.energy_scatter_j is not None:
            share, energy = f"{share} +- {self.hit_scatter:.1%}", f"{energy} +- {self.energy_scatter_j:.1f}"
        return f"{share} in time, {energy} J per task in time"


@dataclass(frozen=True, slots=True)
class LabConditions:
    """How the lab runs the simulated hardware.

    Attributes:
        speed: how many times as fast as real.
        start_s: of pod tasks, real seconds from sending a request to the start of its container, as measured there;
            of served tasks, from the decision to the arrival at the server, which the simulator adds to the round trip.
        scrape_s: real seconds between two scrapes.
        runs_as: whether requests become pod tasks, or served tasks.
        receipt_s: real seconds from sending a request until the operator sees it: to the operator, its deadline counts
            from then on.
    """

    speed: float
    start_s: float
    scrape_s: float
    runs_as: RunsAs = RunsAs.POD
    receipt_s: float = 0.0


def forecast(
    build: Callable[[BuildContext], Strategy],
    scenario: Scenario,
    requests: Sequence[Request],
    conditions: LabConditions,
    *,
    seeds: int,
) -> Figures:
    """Return means and scatter over simulations of the requests, each with its own variation of the links.

    Args:
        build: makes the scheduler of a simulation.
        scenario: of the lab.
        requests: in the order of their arrival.
        conditions: of the lab.
        seeds: how many simulations.
    """
    speed = conditions.speed
    nodes = tuple(_speed_up(node, conditions) for node in scenario.nodes())
    fast = [replace(one, at_s=one.at_s / speed, deadline_s=one.deadline_s / speed) for one in requests]
    settings = SimulationSettings(
        scrape_s=conditions.scrape_s, settling_s=SETTLING_S, warmup_share=0.0, runs_as=conditions.runs_as
    )
    found = []
    for seed in range(seeds):
        context = BuildContext(scenario, default_rng(seed), settings)
        fleet = FleetPlan(scenario.name, nodes, seed=seed)
        found.append(_read_result(simulate(fleet, fast, build(context), settings), conditions.receipt_s))
    shares, energies_j = [one.hit_share for one in found], [one.energy_j for one in found]
    scatter = (stdev(shares), stdev(energies_j)) if seeds > 1 else (None, None)
    return Figures(fmean(shares), fmean(energies_j), *scatter)


def observe(runs: Sequence[RequestResult], truth: Iterable[Mapping[str, Any]]) -> Figures:
    """Return the figures of a replay from the lines of the simulated nodes, one per run of a pod, or per request."""
    rates = NodeSettings().transmission_microjoule_per_bit
    joules = sum(line["energy_j"] + line["input_bytes"] * 8e-6 * rates[Tier(line["tier"])] for line in truth)
    met = sum(run.met for run in runs)
    return Figures(met / len(runs), joules / max(met, 1))


def _read_result(result: RunResult, receipt_s: float) -> Figures:
    tasks = result.tasks
    latency_s = tasks.finished_s - tasks.at_s + receipt_s
    met = int(np.count_nonzero((tasks.fate == Fate.IN_TIME) & (latency_s <= tasks.deadline_s)))
    joules = float(tasks.energy_j.sum() + tasks.transmission_j.sum())
    return Figures(met / len(tasks.fate), joules / max(met, 1))


def _speed_up(node: NodeSpec, conditions: LabConditions) -> NodeSpec:
    """Return the node as the lab runs it: all rates times the speed, joules as they are."""
    speed, gpu, link = conditions.speed, node.gpu, node.link
    order_s = conditions.start_s if conditions.runs_as is RunsAs.REQUEST else 0.0
    return replace(
        node,
        gpu=replace(
            gpu,
            iteration_base_s=gpu.iteration_base_s / speed,
            iteration_per_task_s=gpu.iteration_per_task_s / speed,
            context_token_s=gpu.context_token_s / speed,
            prefill_per_token_s=gpu.prefill_per_token_s / speed,
            prefill_least_s=gpu.prefill_least_s / speed,
            prefill_power_w=gpu.prefill_power_w * speed,
            idle_power_w=gpu.idle_power_w * speed,
            model_load_s=gpu.model_load_s / speed,
            pod_start_s=conditions.start_s,
        ),
        # A lab with agents starts its nodes with their models loaded.
        resident=node.resident or conditions.runs_as is RunsAs.REQUEST,
        link=replace(link, bandwidth_bps=link.bandwidth_bps * speed, rtt_s=link.rtt_s / speed + order_s),
    )
