from dataclasses import fields

import numpy as np
import pytest

from perllm_lab.simulator.experiment import Experiment, RunSpec, run_job
from perllm_lab.simulator.pool import ParallelError, run_parallel
from perllm_lab.simulator.result import RunResult
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.scenarios import load_scenario
from unit.simulator.schedulers import build

EXPERIMENT = Experiment(
    scenario=load_scenario("modern"),
    trace="synthetic:conversation",
    tasks=300,
    policies=("plain", "dropping"),
    loads=(0.9,),
    seeds=(3, 4),
    build=build,
)


def same(one: RunResult, other: RunResult) -> bool:
    tables = [
        np.array_equal(getattr(one.tasks, field.name), getattr(other.tasks, field.name), equal_nan=True)
        for field in fields(one.tasks)
        if field.name != "forecast"
    ]
    meters = [
        np.array_equal(one.node_energy_j, other.node_energy_j),
        np.array_equal(one.node_idle_j, other.node_idle_j),
    ]
    return all([*tables, *meters, one.window_s == other.window_s])


def test_a_result_does_not_depend_on_how_many_processes_there_are() -> None:
    progress: list[tuple[int, int, str]] = []
    jobs = EXPERIMENT.jobs()
    found = run_parallel(run_job, EXPERIMENT, jobs, 2, lambda *step: progress.append(step))
    assert [RunSpec(run.policy, run.load, run.seed) for run in found] == jobs
    assert all(same(run, run_job(EXPERIMENT, job)) for run, job in zip(found, jobs, strict=True))
    assert not same(found[0], found[2]), "another seed, another run"
    assert progress[0] == (0, 4, "")
    assert progress[-1][:2] == (4, 4)


def test_every_policy_sees_the_same_requests() -> None:
    runs = [run_job(EXPERIMENT, RunSpec(policy, 0.9, 3)) for policy in EXPERIMENT.policies]
    assert np.array_equal(runs[0].tasks.at_s, runs[1].tasks.at_s)
    assert np.array_equal(runs[0].tasks.deadline_s, runs[1].tasks.deadline_s)


def test_requests_come_as_fast_as_the_load_says() -> None:
    half, full = (draw_requests(EXPERIMENT.scenario, EXPERIMENT.trace, 4000, load, 3) for load in (0.5, 1.0))
    assert half[-1].at_s / full[-1].at_s == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("broken", "broken at load 0.9, seed 3 failed: ZeroDivisionError: nothing to divide by"),
        ("dying", "dying at load 0.9, seed 3, or a job running at the same time, failed: a process died"),
    ],
)
def test_a_run_that_fails_is_named_with_its_error(policy: str, message: str) -> None:
    with pytest.raises(ParallelError, match=message):
        run_parallel(run_job, EXPERIMENT, [RunSpec(policy, 0.9, 3)], 1)
