import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perllm_lab.report.digest import digest_run
from perllm_lab.report.document import build_document
from perllm_lab.report.metrics import METRICS
from perllm_lab.report.schema import Document
from perllm_lab.simulator.result import Fate, RunResult

IN, LATE, REFUSED = Fate.IN_TIME, Fate.LATE, Fate.REFUSED

Builder = Callable[..., RunResult]


@pytest.fixture
def runs(build_run: Builder) -> list[RunResult]:
    return [
        build_run(fates, policy=policy, load=load, seed=seed)
        for policy, fates in (("clairvoyant", [IN, IN, IN, IN]), ("b", [IN, IN, LATE, LATE]))
        for load in (0.6, 0.9)
        for seed in (1, 2)
    ]


def build(runs: list[RunResult]) -> dict[str, Any]:
    return build_document([digest_run(run) for run in runs], {"trace": "synthetic"})


def test_document_is_valid_json_of_its_schema(runs: list[RunResult]) -> None:
    text = json.dumps(build(runs), allow_nan=False)
    assert Document.model_validate_json(text).schema_version == 2


def test_every_figure_is_a_mean_with_its_interval_and_seeds(runs: list[RunResult]) -> None:
    figures = build(runs)["policies"]["b"]["0.9"]
    assert list(figures) == list(METRICS)
    assert figures["hit_share"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "seeds": [0.5, 0.5]}


def test_loads_that_are_nearly_the_same_are_cells_of_their_own(build_run: Builder) -> None:
    runs = [build_run([IN, IN], load=0.3333333), build_run([IN, LATE], load=0.3333334)]
    cells = build(runs)["policies"]["a"]
    assert {load: cell["hit_share"]["mean"] for load, cell in cells.items()} == {"0.3333333": 1.0, "0.3333334": 0.5}


def test_ratios_compare_policies_at_the_same_load(runs: list[RunResult]) -> None:
    ratio = build(runs)["comparisons"]["clairvoyant"]["0.6"]["b"]
    assert ratio["goodput_per_s"]["mean"] == pytest.approx(2.0)
    assert ratio["fleet_j_per_hit"]["mean"] == pytest.approx(0.5)


def test_next_to_nothing_is_no_denominator(build_run: Builder) -> None:
    runs = [build_run([IN] * hits + [LATE] * (100 - hits), policy=policy) for policy, hits in (("a", 80), ("b", 4))]
    for policy, other in (("a", "b"), ("b", "a")):
        ratios = build(runs)["comparisons"][policy]["0.9"][other]
        assert {name for name, ratio in ratios.items() if ratio["mean"] is not None} == {"tokens_per_s"}


def test_regret_is_against_the_clairvoyant(runs: list[RunResult]) -> None:
    document = build(runs)
    assert document["reference"] == "clairvoyant"
    assert document["curves"]["b"]["0.9"]["regret"]["mean"] == [2.0]


def test_without_a_clairvoyant_there_is_no_regret(runs: list[RunResult]) -> None:
    document = build([run for run in runs if run.policy == "b"])
    assert document["reference"] is None
    assert document["curves"]["b"]["0.9"]["regret"] is None


def test_a_seed_that_was_not_run_is_null_and_does_not_count(runs: list[RunResult]) -> None:
    assert build(runs[:-1])["policies"]["b"]["0.9"]["goodput_per_s"]["seeds"] == [pytest.approx(2 / 3), None]
    assert build(runs[:-1])["policies"]["b"]["0.9"]["goodput_per_s"]["mean"] == pytest.approx(2 / 3)


def test_only_timing_depends_on_the_clock_and_nothing_on_the_order(runs: list[RunResult]) -> None:
    slower = [replace(run, decision_s=run.decision_s * 3, wall_s=9.0) for run in reversed(runs)]
    first, second = build(runs), build(slower)
    assert first.pop("timing") != second.pop("timing")
    assert json.dumps(first) == json.dumps(second)


def test_figures_that_do_not_exist_are_null(build_run: Builder) -> None:
    figures = build([build_run([REFUSED, REFUSED], node=[-1, -1])])["policies"]["a"]["0.9"]
    assert figures["fleet_j_per_hit"] == {"mean": None, "low": None, "high": None, "seeds": [None]}


def test_regret_needs_the_same_tasks(runs: list[RunResult], build_run: Builder) -> None:
    later = build_run([IN, IN, IN, IN], policy="c", load=0.6, seed=1, at_s=[0.0, 1.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="same seed and load"):
        build([*runs, later])


def test_a_run_twice_is_refused(runs: list[RunResult]) -> None:
    with pytest.raises(ValueError, match="there twice"):
        build([*runs, runs[0]])


def test_runs_of_two_scenarios_are_refused(runs: list[RunResult]) -> None:
    with pytest.raises(ValueError, match="one document for each"):
        build([*runs, replace(runs[0], scenario="other", seed=9)])


def test_few_or_short_runs_are_called_so(build_run: Builder) -> None:
    few = [build_run([IN] * 40, seed=seed) for seed in range(4)]
    seeds, length = build(few)["caveats"]["0.9"]
    assert seeds == "too few seeds: 4; at least 5 are needed"
    assert length.startswith(
        "too short: 40 tasks and 7.8 mean deadlines after the warm-up; at least 19,000 tasks or 20"
    )


def test_five_seeds_of_twenty_deadlines_are_enough(build_run: Builder) -> None:
    assert build([build_run([IN] * 101, seed=seed) for seed in range(5)])["caveats"]["0.9"] == []


def test_one_policy_with_few_seeds_is_enough_to_say_so(build_run: Builder) -> None:
    runs = [build_run([IN] * 101, seed=seed) for seed in range(5)]
    found = build([*runs, build_run([IN] * 101, policy="b")])["caveats"]["0.9"]
    assert found == ["too few seeds: 1; at least 5 are needed"]
