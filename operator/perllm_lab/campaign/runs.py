"""All runs of an experiment: those that are kept, and the others in several processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perllm_lab.campaign.cache import RunCache
from perllm_lab.campaign.sources import hash_sources
from perllm_lab.report.digest import RunDigest, digest_run
from perllm_lab.report.progress import Display
from perllm_lab.simulator.experiment import Experiment, RunSpec, run_job
from perllm_lab.simulator.pool import run_parallel


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that is to be made, and where it is kept."""

    experiment: Experiment
    job: RunSpec
    cache: RunCache | None

    def __str__(self) -> str:
        return f"{self.experiment.scenario.name}, {self.job}"


def find_digests(experiment: Experiment, folder: Path | None, processes: int, display: Display) -> list[RunDigest]:
    """Return the digests of all runs of an experiment; see `find_all_digests`."""
    return find_all_digests([experiment], folder, processes, display)[0]


def find_all_digests(
    experiments: Sequence[Experiment], folder: Path | None, processes: int, display: Display
) -> list[list[RunDigest]]:
    """Return the digests of all runs, in the order of the experiments and of `Experiment.jobs`.

    Each run is kept as soon as it is complete, so what was interrupted continues where it stopped.

    Args:
        experiments: what is run.
        folder: where digests are kept and looked for; None for nowhere.
        processes: how many runs at once.
        display: shows the progress.

    Raises:
        ParallelError: a run failed; the message says which and why.
    """
    code = hash_sources() if folder else ""
    planned = [
        PlannedRun(experiment, job, RunCache(folder, code, experiment) if folder else None)
        for experiment in experiments
        for job in experiment.jobs()
    ]
    found = [each.cache.find(each.job) if each.cache else None for each in planned]
    missing = [each for each, digest in zip(planned, found, strict=True) if digest is None]
    if len(missing) < len(planned):
        display.say(f"{len(planned) - len(missing)} of {len(planned)} runs are in {folder}")
    with display.stage("runs") as stage:
        made = iter(run_parallel(make_run, None, missing, processes, stage.update)) if missing else iter(())
    digests = iter([next(made) if digest is None else digest for digest in found])
    return [[next(digests) for _ in experiment.jobs()] for experiment in experiments]


def make_run(_: None, planned: PlannedRun) -> RunDigest:
    """Make one run in this process, and keep it."""
    digest = digest_run(run_job(planned.experiment, planned.job))
    if planned.cache is not None:
        planned.cache.put(planned.job, digest)
    return digest
