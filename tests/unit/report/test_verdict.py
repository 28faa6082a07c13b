from collections.abc import Sequence

from perllm_lab.report.results import FleetEnergy, RequestResult
from perllm_lab.report.verdict import describe_verdict
from perllm_lab.workload.requests import Request

REQUEST = Request("task", "chat", 0.0, 100, 20, 400, deadline_s=10.0)


def make_runs(met: Sequence[bool]) -> list[RequestResult]:
    return [RequestResult(REQUEST, "edge", 5.0 if one else 20.0, 1.0) for one in met]


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

    assert sentence.startswith("ours met as many deadlines as theirs, as far as one run can show (+0, ")


def test_energy_is_compared_per_task_in_time() -> None:
    assert describe([True] * 100, [True] * 50 + [False] * 50, 100.0, 100.0).endswith(
        "and used 50% less energy per task in time"
    )


def test_nothing_is_said_of_energy_without_a_task_in_time() -> None:
    assert "energy" not in describe([True] * 10, [False] * 10, 100.0, 100.0)
