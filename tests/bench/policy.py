"""How fast cs-ucb learns what it could not know: a GPU type without published figures, and figures that are wrong."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bench.tables import Row
from perllm.learning.learner import Learner
from perllm.learning.priors import Prior, find_prior
from perllm.policy.contextual import NAME, CsUcb
from perllm_lab.policies import CLAIRVOYANT, HINDSIGHT, build_scheduler
from perllm_lab.simulator.experiment import BuildContext, Experiment, RunSpec, run_job
from perllm_lab.simulator.placing import OPERATOR_MODE, Placing
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC

SEEDS = (100, 101, 102)
LOAD = 0.9
TASKS = 4000
LEARNED_BY = 300
"""Tasks after a node joined by which its type is to be known."""

RECOVERED_BY = 500
ERROR = 3.0


def measure_policy(say: Callable[[str], None]) -> list[Row]:
    """Return what cs-ucb makes of a type without figures, and of figures that are wrong by a factor."""
    say("policy: a GPU type without figures joins")
    shares = [_share_of_new(NAME, seed) / _share_of_new(CLAIRVOYANT, seed) for seed in SEEDS]
    what = f"tasks of a GPU type without figures, {LEARNED_BY} tasks after it joined, of the clairvoyant's (drift)"
    rows = [Row(what, shares, "x", ">= 0.8")]
    right = _hit_shares(find_prior)
    for name, factor in (("long", ERROR), ("short", 1.0 / ERROR)):
        say(f"policy: published figures {ERROR:g} times too {name}")
        lost = [100.0 * (wrong - one) for wrong, one in zip(_hit_shares(_scaled(factor)), right, strict=True)]
        what = f"in time after {RECOVERED_BY} tasks, published figures {ERROR:g} times too {name} (modern)"
        rows.append(Row(what, lost, "points", ">= -1"))
    return rows


def _share_of_new(policy: str, seed: int) -> float:
    """Return the share of tasks that the node which joins gets, once its type is to be known."""
    run = _run("drift", policy, seed, build_scheduler)
    nodes = load_scenario("drift").nodes()
    newest = int(np.argmax([node.joins_at for node in nodes]))
    tasks = run.tasks
    joined_s = nodes[newest].joins_at * tasks.at_s[-1]
    later = np.flatnonzero(tasks.at_s >= joined_s)[LEARNED_BY:]
    return float((tasks.node[later] == newest).mean())


def _hit_shares(priors: Callable[[str], Prior]) -> Sequence[float]:
    runs = [_run("modern", NAME, seed, partial(_build, priors)) for seed in SEEDS]
    return [float((run.tasks.fate[RECOVERED_BY:] == Fate.IN_TIME).mean()) for run in runs]


def _build(priors: Callable[[str], Prior], name: str, context: BuildContext) -> Strategy:
    policy = CsUcb()
    return Placing(name, policy, OPERATOR_MODE, context.settings, learner=Learner(policy, find_prior=priors))


def _scaled(factor: float) -> Callable[[str], Prior]:
    def find(gpu_type: str) -> Prior:
        prior = find_prior(gpu_type)
        start_s, read_s, write_s, contention_s, trip_s = (factor * one for one in prior.latency)
        prompt_j, own_j, shared_j = (factor * one for one in prior.energy)
        return replace(
            prior, latency=(start_s, read_s, write_s, contention_s, trip_s), energy=(prompt_j, own_j, shared_j)
        )

    return find


def _run(scenario: str, policy: str, seed: int, build: Callable[[str, BuildContext], Strategy]) -> RunResult:
    loaded = load_scenario(scenario)
    experiment = Experiment(
        scenario=loaded,
        trace=f"{SYNTHETIC}{loaded.workload.arrivals}",
        tasks=TASKS,
        policies=(policy,),
        loads=(LOAD,),
        seeds=(seed,),
        build=build,
        hindsight=HINDSIGHT,
    )
    return run_job(experiment, RunSpec(policy, LOAD, seed))
