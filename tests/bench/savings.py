"""Savings that were predicted and reported, next to real ones: kube-scheduler runs tasks next to an operator in shadow
mode, then PerLLM runs the same tasks in active mode, with the profiles that shadow mode has left.

The nodes are cold at the beginning of both runs. The first tasks, a fifth, are there to learn from and do not count.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from random import Random
from statistics import fmean
from typing import NamedTuple

import numpy as np

from bench.shadowing import Shadowing
from bench.tables import Row
from perllm.learning.learner import Learner
from perllm.learning.recent import RecentOutcomes
from perllm.placement.rehearsal import OtherScheduler
from perllm.placement.savings import Excess, SavedUnit
from perllm.policy.contextual import CsUcb
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.placing import LENIENT_MODE, Placing
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.simulation import simulate
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC

SCENARIOS = ("modern", "bursty", "tight", "drift", "outage", "demo", "paper")
LOAD = 0.6
SETTINGS = SimulationSettings()
COVERED = 0.8
"""Share of the runs in which a 90 % interval has to hold what was really saved."""

MOST_WIDTH = 0.4
"""How wide half of an interval may be, as a share of what was really saved."""


class Saying(NamedTuple):
    """What was really saved in one unit, and what both modes said."""

    real: float
    shadow: Excess
    active: Excess


@dataclass(frozen=True, slots=True)
class Trial:
    """What was saved in one scenario with one seed."""

    joules: Saying
    deadlines: Saying


def measure_savings(say: Callable[[str], None], scenarios: Sequence[str], *, seeds: int, tasks: int) -> list[Row]:
    """Return for each scenario, unit and mode how far it was off, and how often its interval held the truth.

    Args:
        say: reports progress.
        scenarios: their names.
        seeds: so many runs of each, with the seeds from 0 on.
        tasks: of a run.
    """
    trials: dict[str, list[Trial]] = defaultdict(list)
    runs = [(name, seed) for name in scenarios for seed in range(seeds)]
    with ProcessPoolExecutor() as pool:
        for (name, seed), trial in zip(
            runs, pool.map(partial(_try, tasks=tasks), *zip(*runs, strict=True)), strict=True
        ):
            trials[name].append(trial)
            say(f"savings: {name} seed {seed}: {_describe(trial)}")
    return [
        _judge(name, unit, mode, [getattr(trial, unit) for trial in some])
        for name, some in trials.items()
        for unit in SavedUnit
        for mode in (OtherScheduler.PERLLM, OtherScheduler.KUBE_SCHEDULER)
    ]


def _try(name: str, seed: int, *, tasks: int) -> Trial:
    scenario = load_scenario(name)
    requests = draw_requests(scenario, f"{SYNTHETIC}{scenario.workload.arrivals}", tasks, LOAD, seed)
    plan = FleetPlan(
        scenario.name, tuple(scenario.nodes()), tuple(scenario.changes(requests[-1].at_s)), load=LOAD, seed=seed
    )
    first = int(SETTINGS.warmup_share * len(requests))
    shadow = Shadowing(SETTINGS, Random(seed), counts_from=first)
    before = _total(simulate(plan, requests, shadow, SETTINGS), first)
    policy = CsUcb()
    active = Placing(
        "perllm",
        policy,
        LENIENT_MODE,
        SETTINGS,
        learner=_restart(shadow.learner, policy, plan),
        other=OtherScheduler.KUBE_SCHEDULER,
        counts_from=first,
    )
    after = _total(simulate(plan, requests, active, SETTINGS), first)
    said = {unit: (shadow.savings.of(unit), active.savings.of(unit)) for unit in SavedUnit}
    return Trial(
        joules=Saying(before[0] - after[0], *said[SavedUnit.JOULES]),
        deadlines=Saying(after[1] - before[1], *said[SavedUnit.DEADLINES]),
    )


def _restart(known: Learner, policy: CsUcb, plan: FleetPlan) -> Learner:
    """Return a learner of `policy` that starts from what another knows; no node has a model loaded."""
    learner = Learner(policy)
    for node in plan.nodes:
        if known.knows(node.name):
            learner.register(node.name, node.gpu.product)
            arms = [
                (name, summary, known.export_arm(node.name, name))
                for name, summary in known.summaries(node.name).items()
            ]
            learner.import_node(node.name, arms, RecentOutcomes())
            learner.cool(node.name)
    return learner


def _total(result: RunResult, first: int) -> tuple[float, float]:
    """Return the joules of all tasks from `first` on, and how many were in time."""
    tasks = result.tasks
    joules = float(np.nansum(tasks.energy_j[first:]) + np.nansum(tasks.transmission_j[first:]))
    return joules, float((tasks.fate[first:] == Fate.IN_TIME).sum())


def _judge(name: str, unit: SavedUnit, mode: OtherScheduler, sayings: Sequence[Saying]) -> Row:
    is_shadow = mode is OtherScheduler.PERLLM
    said = [one.shadow if is_shadow else one.active for one in sayings]
    real = fmean(one.real for one in sayings)
    held = sum(one.low <= saying.real <= one.high for one, saying in zip(said, sayings, strict=True))
    width, error = fmean(one.high - one.low for one in said) / 2, fmean(one.total for one in said) - real
    return Row(
        f"{name}: {unit} {'predicted by shadow mode' if is_shadow else 'reported by active mode'}, less the real ones",
        [one.total - saying.real for one, saying in zip(said, sayings, strict=True)],
        "J" if unit is SavedUnit.JOULES else "tasks",
        f"held in {COVERED * len(said):.0f}, half <= {MOST_WIDTH}",
        f"held in {held} of {len(said)}; half of the interval {width / abs(real):.2f} of the saving, {real:.0f}; "
        f"bias {error / abs(real):+.0%}",
    )


def _describe(trial: Trial) -> str:
    return "; ".join(
        f"{one.name} {saying.real:.0f}, shadow {_show(saying.shadow)}, active {_show(saying.active)}"
        for one in fields(trial)
        for saying in [getattr(trial, one.name)]
    )


def _show(said: Excess) -> str:
    return f"{said.total:.0f} ({said.low:.0f} to {said.high:.0f})"
