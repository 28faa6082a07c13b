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

    @property
    def key(self) -> object:
        """The same for runs that are the same; without a cache every run is one of its own."""
        return id(self) if self.cache is None else self.cache.path(self.job)

    def __str__(self) -> str:
        return f"{self.experiment.scenario.name}, {self.job}"


def find_digests(experiment: Experiment, folder: Path | None, processes: int, display: Display) -> list[RunDigest]:
    """Return the digests of all runs of an experiment; see `find_all_digests`."""
    return find_all_digests([experiment], folder, processes, display)[0]


def find_all_digests(
    experiments: Sequence[Experiment], folder: Path | None, processes: int, display: Display
) -> list[list[RunDigest]]:
    """Return the digests of all runs, in the order of the experiments and of `Experiment.jobs`.

    Each run is kept as soon as it is complete, so what was interrupted continues where it stopped. With a folder, a run
    that several experiments have in common is made once.

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
    found = {each.key: each.cache.find(each.job) if each.cache else None for each in planned}
    missing = list({each.key: each for each in planned if found[each.key] is None}.values())
    if len(missing) < len(planned):
        display.say(f"{len(planned) - len(missing)} of {len(planned)} runs are in {folder} or asked for twice")
    with display.stage("runs") as stage:
        made = run_parallel(make_run, None, missing, processes, stage.update) if missing else []
    known = {key: digest for key, digest in found.items() if digest is not None}
    known |= {each.key: digest for each, digest in zip(missing, made, strict=True)}
    digests = iter([known[each.key] for each in planned])
    return [[next(digests) for _ in experiment.jobs()] for experiment in experiments]


def make_run(_: None, planned: PlannedRun) -> RunDigest:
    """Make one run in this process, and keep it."""
    digest = digest_run(run_job(planned.experiment, planned.job))
    if planned.cache is not None:
        planned.cache.put(planned.job, digest)
    return digest
