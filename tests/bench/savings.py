"""Predicted and real savings: kube-scheduler runs tasks next to shadow mode, then PerLLM runs the same tasks."""

import sys
from collections.abc import Iterable
from random import Random

import click
import numpy as np
from shadowing import Shadowing

from perllm.placement.rehearsal import OtherScheduler
from perllm.placement.savings import SavedUnit
from perllm.policy.contextual import CsUcb
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.placing import LENIENT_MODE, Placing
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.simulation import simulate
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.scenarios import load_scenario


@click.command(help=__doc__)
@click.option("--scenario", "name", default="modern", show_default=True, help="Scenario.")
@click.option("--load", default=0.6, show_default=True, help="Offered work as a share of the capacity.")
@click.option("--trace", default="synthetic:conversation", show_default=True, help="Trace.")
@click.option("--tasks", default=600, show_default=True, help="Tasks of a run.")
@click.option("--seeds", default=5, show_default=True, help="Runs, with the seeds from 0 on.")
def main(name: str, load: float, trace: str, tasks: int, seeds: int) -> None:
    """Print one line for each run and unit: what was saved, and what both modes said."""
    scenario, settings = load_scenario(name), SimulationSettings()
    for seed in range(seeds):
        requests = draw_requests(scenario, trace, tasks, load, seed)
        changes = tuple(scenario.changes(requests[-1].at_s))
        plan = FleetPlan(scenario.name, tuple(scenario.nodes()), changes, load, seed)
        shadow = Shadowing(settings, Random(seed))
        active = Placing("perllm", CsUcb(), LENIENT_MODE, settings, other=OtherScheduler.KUBE_SCHEDULER)
        before, after = (measure(simulate(plan, requests, one, settings)) for one in (shadow, active))
        real = {SavedUnit.JOULES: before[0] - after[0], SavedUnit.DEADLINES: after[1] - before[1]}
        for unit in SavedUnit:
            said = [
                (one.savings.of(unit).total, one.savings.of(unit).low, one.savings.of(unit).high)
                for one in (shadow, active)
            ]
            click.echo(f"{name} {load} seed {seed} {unit}: saved {real[unit]:.0f}; {show(said)}")


def measure(result: RunResult) -> tuple[float, float]:
    """Return the joules of all tasks, and how many were in time."""
    tasks = result.tasks
    return float(np.nansum(tasks.energy_j) + np.nansum(tasks.transmission_j)), float((tasks.fate == Fate.IN_TIME).sum())


def show(said: Iterable[tuple[float, float, float]]) -> str:
    """Return what shadow mode and active mode said, with their intervals."""
    return ", ".join(
        f"{mode} {total:.0f} ({low:.0f} to {high:.0f})"
        for mode, (total, low, high) in zip(("shadow", "active"), said, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
