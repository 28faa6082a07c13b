import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from perllm_lab import simulate
from perllm_lab.campaign import runs
from perllm_lab.campaign.files import write_atomically
from perllm_lab.cli import main
from perllm_lab.policies import UnknownPolicyError, select_policies
from perllm_lab.simulate import SimulateSettings, make_experiment
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.workload.trace import TraceError
from unit.simulator.in_process import run_here
from unit.simulator.schedulers import RoundRobin


def build(name: str, context: BuildContext) -> Strategy:
    scheduler = RoundRobin()
    scheduler.name = name
    return scheduler


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round robin is all there is, and everything runs in this process."""
    monkeypatch.setattr(simulate, "build_scheduler", build)
    monkeypatch.setattr(simulate, "select_policies", lambda text: tuple(text.split(",")))
    monkeypatch.setattr(runs, "run_parallel", run_here)


@pytest.mark.usefixtures("simple")
def test_it_writes_results_and_a_report_and_shows_the_headline_figures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["simulate", "--policies", "a,b", "--load", "0.3,0.9", "--seeds", "2", "--seed-base", "7", "--tasks", "60"]
    pods = ["--work", "pods", "--pod-start", "0.25"]
    result = CliRunner().invoke(main, [*asked, *pods, "--hints", "0.5", "--out", str(out)])
    assert result.exit_code == 0, result.output
    document = json.loads((out / "results.json").read_text())
    assert (list(document["policies"]), document["loads"], document["seeds"]) == (["a", "b"], [0.3, 0.9], [7, 8])
    assert document["setting"]["workload"]["hint_log_error"] == 0.5
    assert document["setting"]["pod_start_s"] == 0.25
    assert document["capacity"]["fleet"] == pytest.approx(51, rel=0.3)
    assert "too few seeds: 2" in result.output
    assert "too short: 60 tasks" in result.output
    assert (out / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert "goodput" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.json"]


@pytest.mark.usefixtures("simple", "without_charts")
def test_the_command_on_the_page_makes_the_same_results(tmp_path: Path) -> None:
    asked = ["simulate", "--policies", "a,b", "--load", "0.9", "--seeds", "2", "--tasks", "60", "--model-load"]
    assert CliRunner().invoke(main, [*asked, "--work", "pods", "--out", str(tmp_path)]).exit_code == 0
    command = re.search(r"<pre>perllm-lab (.*)</pre>", (tmp_path / "report.html").read_text())
    first = json.loads((tmp_path / "results.json").read_text())
    assert command is not None
    assert CliRunner().invoke(main, shlex.split(command[1])).exit_code == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert {**again, "timing": None} == {**first, "timing": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--load", "fast"], "is not a list of numbers"),
        (["--load", "0.9,-1"], "every load must be at least 0.001"),
        (["--load", "1e-9"], "every load must be at least 0.001"),
        (["--hints", "some"], "must be 'none' or a standard deviation"),
        (["--scenario", "nowhere"], "no scenario nowhere"),
        (["--trace", "synthetic:poems"], "no synthetic trace 'poems'"),
        (["--policies", "nobody"], "no policy nobody; known: "),
        (["--pod-start", "1"], "requests have no pod that starts"),
        (["--work", "pods", "--pod-start", "nan"], "nan is not a finite number"),
        (["--scrape", "inf"], "inf is not a finite number"),
        (["--scrape", "1e-6"], "is not in the range x>=0.1"),
        (["--work", "pods", "--pod-start", "1e9"], "is not in the range 0<=x<=3600"),
        (["--policies", "random", "--subject", "cs-ucb"], "--subject cs-ucb is not one of the policies: random"),
        (["--work", "both"], "'both' is not one of 'pods', 'requests'"),
    ],
)
def test_what_it_does_not_know_is_said_and_nothing_is_written(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["simulate", *options, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_trace_of_a_single_moment_is_refused_before_anything_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + 20 * "2023-11-16 18:00:00.0,3,4\n")
    with pytest.raises(TraceError, match="all requests after the first fifth come at the same time"):
        make_experiment(SimulateSettings("modern", "random", tmp_path, trace=str(trace)))


@pytest.mark.usefixtures("simple")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "file/out"], "Not a directory"),
        (["--out", "out", "--json", "file/results.json"], "File exists"),
        (["--out", "taken"], "Is a directory: 'taken/report.html'"),
        (["--out", "/proc"], "/proc/"),  # it is there, and nothing can be written to it
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(simulate, "find_digests", None)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("taken/report.html").mkdir(parents=True)
    result = CliRunner().invoke(main, ["simulate", "--policies", "a", *options])
    assert result.exit_code == 1
    assert message in result.output


def test_the_command_has_every_digit_of_a_load(tmp_path: Path) -> None:
    command = SimulateSettings("modern", "a", tmp_path, loads=(0.6, 1.0, 0.123456789)).command
    assert "--load 0.6,1,0.123456789" in command


def test_policies_are_named_once_or_all_at_a_time() -> None:
    with pytest.raises(UnknownPolicyError, match="known: "):
        select_policies("")


@pytest.mark.usefixtures("simple")
def test_a_synthetic_trace_has_4000_tasks_and_a_file_all_of_its_rows(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0,3,4\n2023-11-16 18:00:01.0,3,4\n")
    settings = SimulateSettings("modern", "a", tmp_path)
    assert make_experiment(settings).tasks == 4000
    assert make_experiment(settings).trace == "synthetic:conversation"
    assert make_experiment(replace(settings, trace=str(trace))).tasks is None
    with pytest.raises(TraceError):
        make_experiment(replace(settings, trace=str(tmp_path / "missing.csv")))


@pytest.mark.usefixtures("simple")
def test_options_take_the_place_of_what_the_scenario_says(tmp_path: Path) -> None:
    settings = SimulateSettings("modern", "a", tmp_path, pod_start_s=0.5, resident=True, hints="none")
    scenario = make_experiment(settings).scenario
    assert {node.gpu.pod_start_s for node in scenario.nodes()} == {0.5}
    assert all(node.resident for node in scenario.nodes())
    assert scenario.workload.hint_log_error is None


@pytest.mark.usefixtures("simple", "without_charts")
def test_results_say_what_tasks_ran_as(tmp_path: Path) -> None:
    for options, kind in (((), "request"), (("--work", "pods"), "pod")):
        size = ["--policies", "a", "--load", "0.9", "--seeds", "1", "--tasks", "60"]
        asked = ["simulate", *size, *options, "--out", str(tmp_path)]
        assert CliRunner().invoke(main, asked).exit_code == 0
        assert json.loads((tmp_path / "results.json").read_text())["setting"]["runs_as"] == kind


@pytest.mark.usefixtures("simple")
@pytest.mark.parametrize(("resident", "loaded"), [(None, True), (False, False)])
def test_servers_have_their_model_loaded_unless_asked_otherwise(
    tmp_path: Path, resident: bool | None, loaded: bool
) -> None:
    settings = SimulateSettings("modern", "a", tmp_path, resident=resident)
    assert {node.resident for node in make_experiment(settings).scenario.nodes()} == {loaded}


def test_a_file_that_cannot_be_written_as_a_whole_is_not_written(tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "new \ud800")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("results.json", "old")]
