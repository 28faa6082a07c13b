"""Pretraining of AGOD, as its authors do it: in the environment in which it is judged, on other seeds.

First on all scenarios in turn; then, from those weights, on each scenario separately, which is kept where it helps.
Always in plain mode, where every task has an outcome; with tasks rejected and ended it learned less.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from perllm_lab.baselines.agod import Agod, AgodParameters
from perllm_lab.baselines.tuned import Weights, WeightsByOwner
from perllm_lab.policies import DEPLOYMENTS, deploy
from perllm_lab.report.progress import Stage
from perllm_lab.simulator.experiment import BuildContext, Experiment, RunSpec, run_job
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.simulator.seeds import derive_seed
from perllm_lab.tuning.candidates import TIE, Score, score_run

PARAMETERS = AgodParameters(update_every=8)
"""Pretraining has time to learn more from each outcome than a judged run."""

GENTLE = replace(PARAMETERS, actor_rate=3e-4, critic_rate=1e-3)
"""For one scenario, so that it does not unlearn what it learned on all of them."""

OWN_EPISODES = 3
"""Episodes on one scenario."""

OWN_SEED, TEST_SEED = 400, 500
"""Offsets from the first seed: for those episodes, and for the runs that show whether they helped."""


def learn_jointly(experiments: Mapping[str, Experiment], episodes: int, seed: int, stage: Stage) -> Weights:
    """Return the weights learned in plain mode over many episodes: scenarios change fastest, then loads."""
    first = next(iter(experiments.values()))
    rounds = list(product(first.loads, experiments.values()))
    weights = Agod(default_rng(derive_seed("agod", seed)), PARAMETERS).export_weights()
    for episode in range(episodes):
        load, experiment = rounds[episode % len(rounds)]
        weights, score = _learn(weights, PARAMETERS, experiment, RunSpec(Agod.name, load, seed + episode))
        note = f"{experiment.scenario.name}, load {load:g}: {score.hit_share:.0%} in time"
        stage.update(episode + 1, episodes, note)
    return weights


def specialise(joint: Weights, experiments: Mapping[str, Experiment], seed: int, stage: Stage) -> WeightsByOwner:
    """Return the weights learned in each scenario separately, where they beat the joint ones in a deployment mode."""
    found: WeightsByOwner = {}
    for done, (scenario, experiment) in enumerate(experiments.items(), start=1):
        own = joint
        for episode, load in enumerate(islice(cycle(sorted(experiment.loads)), OWN_EPISODES)):
            own, _ = _learn(own, GENTLE, experiment, RunSpec(Agod.name, load, seed + OWN_SEED + episode))
        notes = []
        for policy in (Agod.name + mode for mode in DEPLOYMENTS):
            shares = [_test(weights, experiment, policy, seed + TEST_SEED).hit_share for weights in (joint, own)]
            if shares[1] > shares[0] + TIE:
                found[policy, scenario] = own
            notes.append(f"{policy} {shares[0]:.1%} in time jointly, {shares[1]:.1%} separately")
        stage.update(done, len(experiments), f"{scenario}: {'; '.join(notes)}")
    return found


def write_weights(path: Path, weights: WeightsByOwner) -> None:
    """Write weights by owner, completely or not at all."""
    flat = {"/".join((*owner, name)): array for owner, arrays in weights.items() for name, array in arrays.items()}
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **flat)
    part.replace(path)


def _learn(weights: Weights, parameters: AgodParameters, experiment: Experiment, job: RunSpec) -> tuple[Weights, Score]:
    """Make one run; AGOD begins it with the weights alone, because its memory is of another fleet."""
    agod = Agod(default_rng(derive_seed("agod", experiment.scenario.name, job.policy, job.seed)), parameters)
    agod.import_weights(weights)
    run = run_job(replace(experiment, build=partial(_build, agod=agod)), job)
    return agod.export_weights(), score_run(run)


def _test(weights: Weights, experiment: Experiment, policy: str, seed: int) -> Score:
    """Return the score of AGOD at all loads, with the parameters of a judged run."""
    total = Score()
    for load in experiment.loads:
        agod = Agod(default_rng(derive_seed("agod", seed)))
        agod.import_weights(weights)
        total += score_run(run_job(replace(experiment, build=partial(_build, agod=agod)), RunSpec(policy, load, seed)))
    return total


def _build(name: str, context: BuildContext, *, agod: Agod) -> Strategy:
    return deploy(name, agod, context)
