"""The published figures, and the command that makes them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from perllm.api.task_status import RunsAs
from perllm_lab import figures
from perllm_lab.campaign import runs
from perllm_lab.cli import main
from perllm_lab.figures import FigureList, FigureSpec, MoreSeeds, load_figures, plan_figure
from perllm_lab.report.caveats import MIN_DEADLINES, MIN_SEEDS, MIN_TASKS
from perllm_lab.simulator.workload import draw_requests
from unit.simulator.in_process import run_here

HEADLINE = load_figures().headline


def count_runs(figure: FigureSpec) -> int:
    return sum(len(experiment.jobs()) for experiment in plan_figure(figure, Path())[1])


def test_the_headline_takes_at_most_700_runs() -> None:
    assert sum(count_runs(figure) for figure in HEADLINE.values()) <= 700


@pytest.mark.parametrize("name", load_figures().headline)
def test_every_run_of_the_headline_is_long_enough(name: str) -> None:
    figure = HEADLINE[name]
    if figure.tasks >= MIN_TASKS:
        return
    _, (experiment, *_) = plan_figure(figure, Path())
    load = max(figure.loads)
    requests = draw_requests(experiment.scenario, experiment.trace, figure.tasks, load, 0)
    window_s = 0.8 * requests[-1].at_s
    assert window_s / max(request.deadline_s for request in requests) >= MIN_DEADLINES


def test_the_headline_has_enough_seeds_and_thirty_of_paper() -> None:
    assert min(figure.seeds for figure in HEADLINE.values()) >= MIN_SEEDS
    assert HEADLINE["paper"].more_seeds is not None
    assert HEADLINE["paper"].more_seeds.seeds == 30


def test_figures_are_of_pods() -> None:
    _, (experiment, *_) = plan_figure(HEADLINE["paper"], Path())
    assert experiment.settings.runs_as is RunsAs.POD


def test_every_policy_of_every_figure_exists() -> None:
    known = load_figures()
    assert all(count_runs(figure) for figure in {**known.headline, **known.everything}.values())


@pytest.mark.usefixtures("without_charts")
def test_the_command_writes_each_figure_and_makes_its_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = MoreSeeds(policies=("random",), seeds=6)
    spec = FigureSpec(scenario="paper", policies=("random", "round-robin"), loads=(0.9,), tasks=30, more_seeds=more)
    monkeypatch.setattr(figures, "load_figures", lambda: FigureList(headline={"small": spec}, everything={}))
    monkeypatch.setattr(runs, "run_parallel", run_here)
    for said in ("1 figures, 11 runs", "11 of 11 runs are in"):
        result = CliRunner().invoke(main, ["figures", "--out", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert said in result.output
    document = json.loads((tmp_path / "small" / "results.json").read_text())
    shares = {policy: cells["0.9"]["hit_share"]["seeds"] for policy, cells in document["policies"].items()}
    assert [len(found) for found in shares.values()] == [6, 6]
    assert shares["round-robin"][5] is None
    assert shares["random"][5] is not None
    assert "round-robin" in (tmp_path / "small" / "report.html").read_text()


def test_a_figure_that_does_not_exist_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["figures", "--only", "nowhere", "--out", str(tmp_path)])
    assert result.exit_code != 0
    assert "no figure nowhere; known: paper, " in result.output


def test_where_a_figure_cannot_be_written_is_said_before_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_all_digests", None)
    (tmp_path / "paper").touch()
    result = CliRunner().invoke(main, ["figures", "--only", "paper", "--out", str(tmp_path)])
    assert (result.exit_code, "exists" in result.output) == (1, True), result.output
