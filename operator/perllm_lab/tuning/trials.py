"""The command `perllm-lab tune`: finds the parameters that serve each baseline best, on seeds that are not judged.

AGOD is trained beforehand (`perllm_lab.tuning.pretraining`). The others get the best point of a small grid, for each
scenario and each deployment mode separately: most tasks in time, then least energy per task in time. All candidates are
tried at the middle load, the best of them and the default at the other loads too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from itertools import product
from pathlib import Path

from perllm_lab.baselines.agod import Agod
from perllm_lab.baselines.tuned import AGOD_WEIGHTS, JOINT, RECORD, TUNED, Tuned, WeightsByOwner, read_weights
from perllm_lab.campaign.files import check_writable, write_atomically
from perllm_lab.policies import UnknownPolicyError, build_baseline, build_scheduler
from perllm_lab.report.progress import Display
from perllm_lab.simulator.experiment import Experiment, RunSpec, run_job
from perllm_lab.simulator.pool import run_parallel
from perllm_lab.tuning.candidates import (
    GRIDS,
    Candidate,
    Score,
    Scores,
    choose_candidates,
    group_candidates,
    list_candidates,
    merge_chosen,
    pick_finalists,
    score_run,
)
from perllm_lab.tuning.pretraining import learn_jointly, specialise, write_weights
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC

FIRST_SEED = 1000
"""Seeds below are kept for judging."""

SCENARIOS = ("paper", "modern", "tight", "bursty", "drift", "outage")
TUNABLE = (Agod.name, *GRIDS)

Experiments = Mapping[str, Experiment]
"""What the runs of a scenario have in common, by its name."""


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Options of `perllm-lab tune`.

    Attributes:
        out: folder for `tuned.json`, whose other entries are kept, and the weights of AGOD.
        scenarios: scenarios of the lab, or YAML files.
        policies: some of `TUNABLE`.
        loads: offered work as shares of the capacity.
        seeds: how many runs of each candidate at each load.
        seed_base: the first seed.
        tasks: how many a run has.
        episodes: on how many runs AGOD is trained jointly; 0 keeps the joint weights.
        processes: how many runs at once; those of AGOD are sequential.
    """

    out: Path
    scenarios: tuple[str, ...] = SCENARIOS
    policies: tuple[str, ...] = TUNABLE
    loads: tuple[float, ...] = (0.6, 0.9, 1.2)
    seeds: int = 1
    seed_base: int = FIRST_SEED
    tasks: int = 2500
    episodes: int = 36
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a candidate."""

    candidate: Candidate
    load: float
    seed: int

    def __str__(self) -> str:
        return f"{self.candidate}, load {self.load:g}"


def run_tuning(settings: TuneSettings, display: Display) -> None:
    """Tunes, writes the parameters found and what they were chosen from, and shows the gains.

    Raises:
        ScenarioError: there is no such scenario.
        UnknownPolicyError: a policy has no parameters to tune.
        ParallelError: a run failed.
        ValueError: seeds are those used for judging.
    """
    if settings.seed_base < FIRST_SEED:
        raise ValueError(f"seeds below {FIRST_SEED} are for judging, not for tuning: {settings.seed_base}")
    if unknown := [name for name in settings.policies if name not in TUNABLE]:
        raise UnknownPolicyError(f"nothing to tune for {', '.join(unknown)}; known: {', '.join(TUNABLE)}")
    experiments = make_experiments(settings)
    for name in (AGOD_WEIGHTS, TUNED, RECORD):
        check_writable(settings.out / name)
    if Agod.name in settings.policies:
        pretrain_agod(settings.out / AGOD_WEIGHTS, experiments, settings, display)
    if candidates := list_candidates(settings.policies, list(experiments)):
        scores = try_candidates(candidates, experiments, settings, display)
        chosen = choose_candidates(scores)
        write_parameters(settings.out / TUNED, chosen)
        write_record(settings.out / RECORD, scores, settings)
        for line in describe_gains(scores, chosen):
            display.say(line)
    display.say(f"written to {settings.out}")


def make_experiments(settings: TuneSettings) -> Experiments:
    """Returns what the runs in each scenario have in common. Raises ScenarioError when there is no such scenario."""
    scenarios = [load_scenario(name) for name in settings.scenarios]
    return {
        scenario.name: Experiment(
            scenario=scenario,
            trace=f"{SYNTHETIC}{scenario.workload.arrivals}",
            tasks=settings.tasks,
            policies=(),
            loads=settings.loads,
            seeds=tuple(range(settings.seed_base, settings.seed_base + settings.seeds)),
            build=build_scheduler,
        )
        for scenario in scenarios
    }


def try_candidates(
    candidates: Sequence[Candidate], experiments: Experiments, settings: TuneSettings, display: Display
) -> Scores:
    """Returns the scores of the finalists among the candidates over all loads and seeds."""
    others = sorted(settings.loads)
    middle = others.pop(len(others) // 2)
    first = _try_all(candidates, (middle,), experiments, settings.processes, display)
    finalists = pick_finalists(first)
    rest = _try_all(finalists, others, experiments, settings.processes, display)
    return {each: first[each] + rest[each] for each in finalists}


def run_trial(experiments: Experiments, trial: Trial) -> Score:
    """Makes one run; candidates of a policy draw the same random numbers and so differ in their parameters alone."""
    candidate = trial.candidate
    build = partial(build_baseline, parameters=dict(candidate.parameters))
    experiment = replace(experiments[candidate.scenario], build=build)
    return score_run(run_job(experiment, RunSpec(candidate.policy, trial.load, trial.seed)))


def pretrain_agod(path: Path, experiments: Experiments, settings: TuneSettings, display: Display) -> None:
    """Trains AGOD and writes its weights.

    Without joint episodes it starts from the joint weights in the file, and those of other scenarios are kept.
    """
    weights: WeightsByOwner = {}
    if settings.episodes:
        with display.stage("agod in all scenarios") as stage:
            weights[JOINT] = learn_jointly(experiments, settings.episodes, settings.seed_base, stage)
    else:
        with path.open("rb") as file:
            before = read_weights(file)
        weights |= {owner: each for owner, each in before.items() if owner[-1] not in experiments}
    with display.stage("agod in each scenario") as stage:
        weights |= specialise(weights[JOINT], experiments, settings.seed_base, stage)
    write_weights(path, weights)


def write_parameters(path: Path, chosen: Sequence[Candidate]) -> None:
    """Updates a file with the parameters of candidates; those of other policies and scenarios are kept."""
    before: Tuned = json.loads(path.read_text("utf-8")) if path.exists() else {}
    write_atomically(path, json.dumps(merge_chosen(before, chosen), indent=1, sort_keys=True) + "\n")


def write_record(path: Path, scores: Scores, settings: TuneSettings) -> None:
    """Updates a file with what the parameters were chosen from: the finalists with their scores, over all runs."""
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for default, *others in group_candidates(scores):
        record.setdefault(default.policy, {})[default.scenario] = {
            "loads": list(settings.loads),
            "seeds": list(range(settings.seed_base, settings.seed_base + settings.seeds)),
            "tasks": settings.tasks,
            "finalists": [_describe_finalist(each, scores[each]) for each in (default, *others)],
        }
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n")


def describe_gains(scores: Scores, chosen: Sequence[Candidate]) -> list[str]:
    """Returns a line per policy and scenario: scores of the default and the chosen parameters, and the latter."""
    lines = ["", f"{'policy':<24}{'scenario':<10}{'default in time, fleet J':>26}{'chosen':>18}"]
    for (default, *_), best in zip(group_candidates(scores), chosen, strict=True):
        before, after = (f"{scores[each].hit_share:.1%} {scores[each].j_per_hit:8,.0f}" for each in (default, best))
        lines.append(f"{best.policy:<24}{best.scenario:<10}{before:>26}{after:>18}  {best.describe()}")
    return [*lines, ""]


def default_folder() -> Path:
    """Returns the folder from which tuned parameters are read."""
    return Path(str(files("perllm_lab.baselines")))


def _describe_finalist(candidate: Candidate, score: Score) -> dict[str, object]:
    j_per_hit = score.energy_j / score.hits if score.hits else None
    return {"parameters": dict(candidate.parameters), "hit_share": score.hit_share, "fleet_j_per_hit": j_per_hit}


def _try_all(
    candidates: Sequence[Candidate],
    loads: Sequence[float],
    experiments: Experiments,
    processes: int,
    display: Display,
) -> Scores:
    trials = [
        Trial(candidate, load, seed)
        for candidate in candidates
        for load, seed in product(loads, experiments[candidate.scenario].seeds)
    ]
    scores = dict.fromkeys(candidates, Score())
    if not trials:
        return scores
    with display.stage(f"candidates at load {', '.join(f'{load:g}' for load in loads)}") as stage:
        found = run_parallel(run_trial, experiments, trials, processes, stage.update)
    for trial, score in zip(trials, found, strict=True):
        scores[trial.candidate] += score
    return scores
