"""An experiment: every policy at every load with every seed, in several processes.

The result of a run depends only on the experiment and on its own policy, load and seed, so neither the number of
processes nor the order in which they finish changes a result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from numpy.random import Generator, default_rng

from perllm_lab.hardware.scenario import Scenario
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.pool import OnProgress, run_parallel
from perllm_lab.simulator.result import RunResult
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
    """

    scenario: Scenario
    trace: str
    tasks: int | None
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    build: Build
    settings: SimulationSettings = field(default_factory=SimulationSettings)

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


def run_experiment(experiment: Experiment, processes: int, on_progress: OnProgress | None = None) -> list[RunResult]:
    """Make all runs and return their results in the order of `Experiment.jobs`.

    Args:
        experiment: what is run.
        processes: how many runs at once.
        on_progress: called with the number of runs done, the number of all runs, and the last one.

    Raises:
        ParallelError: a run failed; the message says which and why.
    """
    return run_parallel(run_job, experiment, experiment.jobs(), processes, on_progress)


def run_job(experiment: Experiment, job: RunSpec) -> RunResult:
    """Make one run in this process."""
    scenario, settings = experiment.scenario, experiment.settings
    requests = draw_requests(scenario, experiment.trace, experiment.tasks, job.load, job.seed)
    nodes = tuple(scenario.nodes())
    context = BuildContext(
        scenario=scenario,
        rng=default_rng(derive_seed(scenario.name, job.load, job.seed, "policy", job.policy)),
        settings=settings,
    )
    fleet = FleetPlan(scenario.name, nodes, tuple(scenario.changes(requests[-1].at_s)), job.load, job.seed)
    return simulate(fleet, requests, experiment.build(job.policy, context), settings)
