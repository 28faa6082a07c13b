"""Runs that are kept: found again while nothing that they depend on has changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from perllm_lab.campaign import runs
from perllm_lab.campaign.cache import RunCache
from perllm_lab.campaign.runs import find_all_digests, find_digests
from perllm_lab.report.digest import RunDigest, digest_run
from perllm_lab.report.progress import Display
from perllm_lab.simulator.experiment import Experiment, RunSpec, run_job
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.workload.scenarios import load_scenario
from unit.simulator.in_process import run_here
from unit.simulator.schedulers import build

EXPERIMENT = Experiment(
    scenario=load_scenario("modern"),
    trace="synthetic:conversation",
    tasks=60,
    policies=("plain", "dropping"),
    loads=(0.9,),
    seeds=(3, 4),
    build=build,
)
JOB = RunSpec("plain", 0.9, 3)
QUIET = Display(Console(quiet=True))


@pytest.fixture(scope="module")
def digest() -> RunDigest:
    return digest_run(run_job(EXPERIMENT, JOB))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The runs that were made."""
    jobs: list[RunSpec] = []

    def run(work: Callable[..., Any], shared: Any, assignments: Any, processes: int, progress: Any) -> Any:
        jobs.extend(each.job for each in assignments)
        return run_here(work, shared, assignments, processes)

    monkeypatch.setattr(runs, "run_parallel", run)
    return jobs


def test_a_run_is_found_as_it_was_kept_to_the_last_bit(tmp_path: Path, digest: RunDigest) -> None:
    cache = RunCache(tmp_path, "code", EXPERIMENT)
    assert cache.find(JOB) is None
    cache.put(JOB, digest)
    assert cache.find(JOB) == digest


@pytest.mark.parametrize(
    ("code", "changes", "job"),
    [
        ("other code", {}, JOB),
        ("code", {"tasks": 61}, JOB),
        ("code", {"trace": "synthetic:short"}, JOB),
        ("code", {"scenario": load_scenario("tight")}, JOB),
        ("code", {"settings": SimulationSettings(scrape_s=7.0)}, JOB),
        ("code", {}, replace(JOB, policy="dropping")),
        ("code", {}, replace(JOB, load=0.91)),
        ("code", {}, replace(JOB, seed=4)),
    ],
)
def test_no_run_is_found_where_anything_that_it_depends_on_differs(
    tmp_path: Path, digest: RunDigest, code: str, changes: dict[str, Any], job: RunSpec
) -> None:
    RunCache(tmp_path, "code", EXPERIMENT).put(JOB, digest)
    assert RunCache(tmp_path, code, replace(EXPERIMENT, **changes)).find(job) is None


def test_a_trace_in_a_file_is_known_by_its_content(tmp_path: Path, digest: RunDigest) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("one")
    RunCache(tmp_path, "code", replace(EXPERIMENT, trace=str(trace))).put(JOB, digest)
    trace.write_text("two")
    assert RunCache(tmp_path, "code", replace(EXPERIMENT, trace=str(trace))).find(JOB) is None


@pytest.mark.parametrize("joined", ["synthetic:short+{}", "{}+synthetic:short", "{}+{}"])
def test_files_in_a_joined_trace_are_known_by_their_content_too(tmp_path: Path, digest: RunDigest, joined: str) -> None:
    file = tmp_path / "trace.csv"
    asked = replace(EXPERIMENT, trace=joined.format(file, file))
    file.write_text("one")
    RunCache(tmp_path, "code", asked).put(JOB, digest)
    assert RunCache(tmp_path, "code", asked).find(JOB) == digest
    file.write_text("two")
    assert RunCache(tmp_path, "code", asked).find(JOB) is None


def test_only_what_is_missing_is_run(tmp_path: Path, made: list[RunSpec]) -> None:
    first = find_digests(replace(EXPERIMENT, seeds=(3,)), tmp_path, 1, QUIET)
    made.clear()
    found = find_digests(EXPERIMENT, tmp_path, 1, QUIET)
    assert [job.seed for job in made] == [4, 4]
    assert [(run.policy, run.seed) for run in found] == [(job.policy, job.seed) for job in EXPERIMENT.jobs()]
    assert found[:2] == first


def test_a_file_that_cannot_be_read_is_made_again(tmp_path: Path, made: list[RunSpec]) -> None:
    find_digests(EXPERIMENT, tmp_path, 1, QUIET)
    next(tmp_path.rglob("*.json")).write_text("half")
    made.clear()
    find_digests(EXPERIMENT, tmp_path, 1, QUIET)
    assert len(made) == 1


def test_without_a_folder_everything_is_run_and_nothing_is_kept(made: list[RunSpec]) -> None:
    for _ in range(2):
        find_digests(EXPERIMENT, None, 1, QUIET)
    assert len(made) == 8


def test_each_experiment_gets_its_own_runs(made: list[RunSpec]) -> None:
    one, two = find_all_digests([replace(EXPERIMENT, seeds=(3,)), replace(EXPERIMENT, seeds=(4,))], None, 1, QUIET)
    assert ({run.seed for run in one}, {run.seed for run in two}) == ({3}, {4})


def test_a_run_of_two_experiments_is_made_once(tmp_path: Path, made: list[RunSpec]) -> None:
    one, two = find_all_digests([EXPERIMENT, replace(EXPERIMENT, seeds=(4, 5))], tmp_path, 1, QUIET)
    assert [job.seed for job in made] == [3, 3, 4, 4, 5, 5]
    assert one[2:] == two[:2]
