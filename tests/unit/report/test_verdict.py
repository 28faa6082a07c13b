from collections.abc import Sequence

import numpy as np
import pytest

from perllm_lab.report.results import FleetEnergy, RequestResult
from perllm_lab.report.verdict import compare_energy, describe_verdict
from perllm_lab.workload.requests import Request

REQUEST = Request("task", "chat", 0.0, 100, 20, 400, deadline_s=10.0)


def make_runs(met: Sequence[bool], energies_j: Sequence[float] | None = None) -> list[RequestResult]:
    energies_j = energies_j or [1.0] * len(met)
    return [
        RequestResult(REQUEST, "edge", 5.0 if one else 20.0, energy_j)
        for one, energy_j in zip(met, energies_j, strict=True)
    ]


def describe(ours: Sequence[bool], theirs: Sequence[bool], *energy_j: float) -> str:
    runs = {"ours": make_runs(ours), "theirs": make_runs(theirs)}
    fleets = {name: FleetEnergy(joules, 0.0, 1.0) for name, joules in zip(runs, energy_j, strict=True)}
    (sentence,) = describe_verdict("ours", runs, fleets)
    return sentence


def test_deadlines_won_are_counted_with_their_interval() -> None:
    sentence = describe([True] * 100, [True] * 80 + [False] * 20, 100.0, 100.0)

    assert sentence.startswith("ours met 20 deadlines more than theirs (95 % interval +12 to +28)")


def test_a_difference_within_the_interval_is_called_none() -> None:
    sentence = describe([True] * 50 + [False] * 50, [True] * 49 + [False] * 50 + [True], 100.0, 100.0)

    assert sentence.startswith("ours met as many deadlines as theirs, as far as one run can show (+0; ")


def test_energy_is_compared_per_task_in_time_with_its_interval() -> None:
    sentence = describe([True] * 100, [True] * 50 + [False] * 50, 100.0, 100.0)

    assert sentence.endswith("and used 50% less energy per task in time (-59% to -39%).")


def test_a_difference_in_energy_within_the_interval_is_called_none() -> None:
    sentence = describe([True] * 100, [True] * 99 + [False], 100.0, 100.0)

    assert "and used as much energy per task in time, as far as one run can show (-1%; -3% to +1%)" in sentence


def test_nothing_is_said_of_energy_without_a_task_in_time() -> None:
    assert "energy" not in describe([True] * 10, [False] * 10, 100.0, 100.0)


def test_the_interval_of_energy_has_the_true_ratio_in_it_19_times_out_of_20() -> None:
    rng, inside, repetitions, count, idle_j = np.random.default_rng(1), 0, 400, 200, 300.0
    # A request takes one joule for each second; the others take half as many again.
    true_ratio = (idle_j / count + 2.0) / 0.9 / ((idle_j / count + 3.0) / 0.7)
    for _ in range(repetitions):
        work_j = rng.gamma(2.0, 1.0, count)
        ours = make_runs(list(rng.random(count) < 0.9), work_j.tolist())
        others = make_runs(list(rng.random(count) < 0.7), (1.5 * work_j).tolist())
        found = compare_energy(ours, idle_j + work_j.sum(), others, idle_j + 1.5 * work_j.sum())
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= true_ratio <= found.high
    assert inside / repetitions == pytest.approx(0.95, abs=0.03)
