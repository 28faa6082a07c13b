import os
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from perllm.api.task_status import RunsAs
from perllm.config import Config
from perllm.submission.command import submit
from perllm_lab import demo
from perllm_lab.claim import claim
from perllm_lab.cli import cluster, main
from perllm_lab.cli.cluster import EXAMPLE_REQUEST, PID_FILE
from perllm_lab.demo import CONTENDERS, DemoSettings, report_results
from perllm_lab.demo_forecast import SchedulerRun, find_receipt_s, find_start_s
from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.report.progress import Display
from perllm_lab.report.results import FleetEnergy, RequestResult
from perllm_lab.trace_replay import as_tasks
from perllm_lab.workload.requests import Request
from unit.placement.records import make_decision


@pytest.mark.parametrize(("options", "kind"), [((), RunsAs.REQUEST), (("--work", "pods"), RunsAs.POD)])
def test_the_demo_runs_tasks_as_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], kind: RunsAs
) -> None:
    asked: list[DemoSettings] = []

    async def run_demo(settings: DemoSettings, _: object) -> list[str]:
        asked.append(settings)
        return []

    monkeypatch.setattr(cluster, "run_demo", run_demo)
    result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path), "--tasks", "7", *options])
    assert result.exit_code == 0, result.output
    assert [(one.runs_as, one.tasks, one.folder) for one in asked] == [(kind, 7, tmp_path / "demo")]


def test_a_second_demo_leaves_the_folder_of_the_first_one_alone(tmp_path: Path) -> None:
    with claim(tmp_path / "demo" / PID_FILE):
        result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])
    assert (result.exit_code, f"process {os.getpid()} works in" in result.output) == (1, True)


class NoLabError(Exception):
    """Instead of a lab."""


async def start_command(monkeypatch: pytest.MonkeyPatch, command: Callable[[], Awaitable[object]]) -> None:
    """Run a command until it would start a lab."""

    async def provide_binaries(*_: object) -> dict[str, Path]:
        return {}

    def start(*_: object) -> None:
        raise NoLabError

    for module in (demo, cluster):
        monkeypatch.setattr(module, "provide_binaries", provide_binaries)
    monkeypatch.setattr(Lab, "__init__", start)
    with pytest.raises(NoLabError):
        await command()


async def start_demo(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    settings = DemoSettings("demo", 5, None, 0.5, CONTENDERS, 1.0, 0, folder)
    await start_command(monkeypatch, lambda: demo.run_demo(settings, Display(Console(file=StringIO()))))


async def start_afresh(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    display = Display(Console(file=StringIO()))
    await start_command(monkeypatch, lambda: cluster._up(LabSettings(), folder.parent, display, fresh=True))


@pytest.mark.parametrize(("start", "name"), [(start_demo, "demo"), (start_afresh, "up")])
async def test_a_folder_of_that_name_keeps_the_files_of_its_user(
    start: Callable[[pytest.MonkeyPatch, Path], Awaitable[None]],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tmp_path / name / "kubernetes" / "thesis.txt"
    own.parent.mkdir(parents=True)
    own.write_text("years of work")
    await start(monkeypatch, tmp_path / name)
    assert own.read_text() == "years of work"


@pytest.mark.parametrize(("start", "part"), [(start_demo, f"demo/{CONTENDERS[-1]}"), (start_afresh, "up")])
async def test_a_start_from_scratch_removes_an_earlier_lab(
    start: Callable[[pytest.MonkeyPatch, Path], Awaitable[None]],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / part / "kubernetes" / "etcd" / "member"
    data.mkdir(parents=True)
    await start(monkeypatch, tmp_path / part.partition("/")[0])
    assert not data.exists()


async def test_a_scenario_that_does_not_exist_removes_no_lab_and_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "up" / "kubernetes" / "etcd"
    data.mkdir(parents=True)
    monkeypatch.setattr(cluster, "provide_binaries", None)
    with pytest.raises(ScenarioError, match="no scenario typo"):
        await cluster._up(LabSettings("typo"), tmp_path, Display(Console(file=StringIO())), fresh=True)
    assert data.exists()


def start_lab(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> LabSettings:
    """Return what the command starts a lab with."""
    asked: list[LabSettings] = []

    async def run_lab(settings: LabSettings, *_: object, fresh: bool) -> None:
        asked.append(settings)

    monkeypatch.setattr(cluster, "_up", run_lab)
    result = CliRunner().invoke(main, ["up", *options])
    assert result.exit_code == 0, result.output
    (settings,) = asked
    return settings


@pytest.mark.parametrize(("options", "has_agents"), [((), True), (("--no-agents",), False)])
def test_a_lab_has_agents_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], has_agents: bool
) -> None:
    assert start_lab(monkeypatch, options).has_agents == has_agents


@pytest.mark.parametrize(("options", "name"), [((), "cs-ucb"), (("--policy", "cs-ucb-table"), "cs-ucb-table")])
def test_a_lab_runs_the_policy_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], name: str
) -> None:
    config = start_lab(monkeypatch, options).operator_config
    assert config is not None
    assert Config.model_validate(config).policy.name == name


def test_the_example_that_a_lab_prints_is_a_command_that_there_is() -> None:
    kubectl, plugin, command, *arguments = shlex.split(EXAMPLE_REQUEST.format(model="chat"))
    assert (kubectl, plugin, command) == ("kubectl", "perllm", "submit")
    assert submit.make_context(command, arguments).params["model"] == "chat"


@pytest.mark.parametrize(("kind", "field"), [(RunsAs.POD, "template"), (RunsAs.REQUEST, "prompt")])
def test_a_replay_sends_tasks_of_the_kind(kind: RunsAs, field: str) -> None:
    request = Request("task-0", "chat", 0.0, 100, 20, 400, 10.0)
    spec = as_tasks("default", 2.0, strict=True, runs_as=kind).build(request)["spec"]
    assert {"template", "prompt"} & set(spec) == {field}
    assert (spec["deadline"], spec["onInfeasible"]) == ("5s", "Reject")


def make_run(*truth: dict[str, Any]) -> SchedulerRun:
    sent_s = {"a": 0.0, "b": 0.0, "c": 0.0}
    return SchedulerRun(sent_s, [], FleetEnergy(0.0, 0.0, 1.0), list(truth), [])


def test_the_start_of_pods_is_the_median_since_tasks_were_sent() -> None:
    lines = [
        {"kind": "pod", "task": name, "started": f"1970-01-01T00:00:0{second}+00:00"}
        for name, second in (("a", 1), ("b", 2), ("c", 9))
    ]
    assert find_start_s(make_run(*lines)) == 2.0


def test_the_start_of_requests_is_the_mean_since_they_were_placed() -> None:
    record = make_decision(decided_s=3.0).to_record()
    lines = [
        {"kind": "request", "task": name, "created": f"1970-01-01T00:00:03.{part}+00:00"}
        for name, part in (("a", "1"), ("b", "2"), ("c", "9"))
    ]
    placed = [{"metadata": {"name": name}, "status": {"runsAs": "request", "decisionRecord": record}} for name in "abc"]
    run = make_run(*lines)
    assert find_start_s(replace(run, objects=placed)) == pytest.approx(0.4)
    assert find_start_s(run) == 0.0, "they were not placed by PerLLM"


def test_the_receipt_of_requests_is_the_median_since_they_were_sent() -> None:
    tasks = [
        {"metadata": {"name": name}, "status": {"runsAs": "request", "receivedTime": f"1970-01-01T00:00:0{second}Z"}}
        for name, second in (("a", 1), ("b", 2), ("c", 9))
    ]
    assert find_receipt_s(replace(make_run(), objects=tasks)) == 2.0
    assert find_receipt_s(make_run()) == 0.0


def test_what_the_demo_reports_fits_80_columns() -> None:
    request = Request("task-0", "chat", 0.0, 100, 20, 400, 10.0)
    runs = [RequestResult(request, tier, latency_s, 5321.0) for tier in ("edge", "cloud") for latency_s in (5.0, 20.0)]
    fleet = FleetEnergy(75000.0, 100.0, 60.0)
    console = Console(width=80, record=True, file=StringIO())
    report_results({name: replace(make_run(), runs=runs, fleet=fleet) for name in CONTENDERS}, Display(console))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    for other in CONTENDERS[1:]:
        assert any(line.startswith(f"cs-ucb met as many deadlines as {other}") for line in lines)
