"""An experiment: every policy at every load with every seed, in several processes.

The result of a run depends only on the experiment and on its own policy, load and seed, so neither the number of
processes nor the order in which they finish changes a result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator, default_rng

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.simulator.seeds import derive_seed
from perllm_lab.simulator.simulation import simulate
from perllm_lab.simulator.workload import draw_requests


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a scheduler is built from.

    Attributes:
        scenario: the nodes and their workload; parameters were tuned by its name.
        rng: the source of everything the policy draws.
        settings: how the run is observed.
    """

    scenario: Scenario
    rng: Generator
    settings: SimulationSettings


Build = Callable[[str, BuildContext], Strategy]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is simulated.

    Attributes:
        scenario: the nodes, their workload, and the events.
        trace: a trace file, or `synthetic:NAME`.
        tasks: how many requests; None for as many as the trace has.
        policies: their names, as `build` takes them.
        loads: offered work as shares of the capacity.
        seeds: one run for each.
        build: makes a scheduler from its name; a module-level function, so that other processes find it.
        settings: how runs are observed and evaluated.
        hindsight: policies of which several are run, and the best run counts; their names for `build`.
    """

    scenario: Scenario
    trace: str
    tasks: int | None
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    build: Build
    settings: SimulationSettings = field(default_factory=SimulationSettings)
    hindsight: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def jobs(self) -> list["RunSpec"]:
        """Every run of the experiment."""
        return [RunSpec(policy, load, seed) for load in self.loads for seed in self.seeds for policy in self.policies]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run."""

    policy: str
    load: float
    seed: int

    def __str__(self) -> str:
        return f"{self.policy} at load {self.load:g}, seed {self.seed}"


def run_job(experiment: Experiment, job: RunSpec) -> RunResult:
    """Make one run in this process; of a policy with hindsight several, of which the best is returned."""
    names = experiment.hindsight.get(job.policy, (job.policy,))
    runs = [_run(experiment, replace(job, policy=name)) for name in names]
    return replace(max(runs, key=_rank), policy=job.policy)


def _run(experiment: Experiment, job: RunSpec) -> RunResult:
    scenario, settings = experiment.scenario, experiment.settings
    requests = draw_requests(scenario, experiment.trace, experiment.tasks, job.load, job.seed)
    context = BuildContext(
        scenario=scenario,
        rng=default_rng(derive_seed(scenario.name, job.load, job.seed, "policy", job.policy)),
        settings=settings,
    )
    changes = tuple(scenario.changes(requests[-1].at_s))
    fleet = FleetPlan(scenario.name, tuple(scenario.nodes()), changes, job.load, job.seed)
    return simulate(fleet, requests, experiment.build(job.policy, context), settings)


def _rank(run: RunResult) -> tuple[int, float]:
    """Return what makes a run the best: most judged tasks in time, then least energy."""
    judged = run.tasks.at_s >= run.window_s[0]
    hits = int(np.count_nonzero(judged & (run.tasks.fate == Fate.IN_TIME)))
    return hits, -float(run.node_energy_j.sum())
