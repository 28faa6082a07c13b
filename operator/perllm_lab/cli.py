"""The command line of the lab."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from perllm.api.task_status import RunsAs
from perllm.cluster.client import ApiError
from perllm.scheduling.journal import JournalError
from perllm_lab.claim import ClaimedError, claim, find_holder
from perllm_lab.demo import CONTENDERS, DemoSettings, SlowMachineError, provide_binaries, run_demo
from perllm_lab.figures import FigureSettings, UnknownFigureError, make_figures
from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.kubernetes.build import ToolchainError
from perllm_lab.kubernetes.process import ProcessError
from perllm_lab.lab import COMPONENTS, OPERATOR_USER, Lab, LabSettings
from perllm_lab.policies import UnknownPolicyError
from perllm_lab.report.progress import Display
from perllm_lab.simulate import NO_HINTS, SimulateSettings, run_simulation
from perllm_lab.simulator.journal_replay import replay_journal
from perllm_lab.simulator.pool import ParallelError
from perllm_lab.trace_replay import TraceReplayError
from perllm_lab.tuning.trials import FIRST_SEED, SCENARIOS, TUNABLE, TuneSettings, default_folder, run_tuning
from perllm_lab.workload.scenarios import load_scenario, scenario_names
from perllm_lab.workload.trace import TraceError

DEFAULT_FOLDER = Path(".lab")
PID_FILE = "lab.pid"
WORK = {f"{kind}s": kind for kind in RunsAs}
ENVIRONMENT = "env"
WATCH_INTERVAL_S = 2.0
EXAMPLE_REQUEST = """\
  kubectl perllm submit --model {model} --deadline 30s --prompt "Which is the largest planet?" --wait"""
EXAMPLE_POD = """\
  kubectl apply -f examples/task.yaml"""
GUIDE = """\
There, try:
{example}
  kubectl perllm top                nodes, tasks and joules, live
  kubectl perllm explain TASK       where it ran, why there, and what it cost
  perllm doctor                     what is missing; nothing, in a lab
  kubectl apply -f examples/task.yaml      a task with a pod; so do batch-of-tasks.yaml and task-complete.yaml
Decisions are logged in {log}; to follow them:
  tail -f {log} | jq -r 'select(.event == "decision") | .message'"""
MAX_SHOWN = 20
"""Differences of a replay that are shown."""

EXPECTED = (
    ClaimedError,
    ToolchainError,
    ProcessError,
    SlowMachineError,
    ScenarioError,
    TraceError,
    TraceReplayError,
    ApiError,
    UnknownFigureError,
    UnknownPolicyError,
    ParallelError,
    OSError,
)

_FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the lab keeps its files.",
)
_SCENARIO = click.option(
    "--scenario", default="modern", show_default=True, help=f"{', '.join(scenario_names())}, or a YAML file."
)
_SPEED = click.option(
    "--speed",
    type=click.FloatRange(min=0.1, max=20),
    default=2.0,
    show_default=True,
    help="Speed of the simulated hardware, as a multiple of real time.",
)


def _work(default: RunsAs) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--work",
        "runs_as",
        type=click.Choice(list(WORK)),
        callback=lambda _, __, name: WORK[name],
        default=f"{default}s",
        show_default=True,
        help="What tasks run as: each a pod of its own, or requests to model servers that are up already. "
        "Published figures are of pods unless they say otherwise.",
    )


_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
_CACHE = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps the figures of runs; those of the same code, scenario, policy, load and seed are reused.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="perllm-lab")
def main() -> None:
    """An edge-cloud cluster on a laptop: a real control plane, Prometheus and operator, and simulated GPU nodes."""


def _split(text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _parse_contenders(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = _parse_names(context, parameter, text)
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise click.BadParameter(f"there is no {', '.join(unknown)}; choose from {', '.join(CONTENDERS)}")
    return names


def _parse_names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    names = _split(text)
    if not names:
        raise click.BadParameter("must name at least one")
    return names


@main.command()
@click.option("--scenario", default="demo", show_default=True, help=f"{', '.join(scenario_names())}, or a YAML file.")
@_SPEED
@_SEED
@_FOLDER
@click.option(
    "--policy",
    "contenders",
    default=",".join(CONTENDERS),
    callback=_parse_contenders,
    show_default=True,
    help="What to compare; the others are compared with the first.",
)
@click.option(
    "--load",
    type=click.FloatRange(min=0, min_open=True, max=2),
    default=0.8,
    show_default=True,
    help="Offered work as a share of what the nodes can do.",
)
@click.option("--tasks", type=click.IntRange(min=1), default=300, show_default=True, help="Number of tasks.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace to replay: CSV with TIMESTAMP, ContextTokens, GeneratedTokens (also .gz). Synthetic without it.",
)
@_work(RunsAs.REQUEST)
@click.option("--strict", is_flag=True, help="Let PerLLM reject tasks, and end them at their deadline.")
def demo(folder: Path, **options: Any) -> None:
    """Place the same tasks with policies of PerLLM and with the plain kube-scheduler, and compare."""
    settings = DemoSettings(**options, folder=(folder / "demo").absolute())
    faults = _run(run_demo(settings, Display(Console())))
    for fault in faults:
        click.echo(f"FAULT: {fault}", err=True)
    if faults:
        raise SystemExit(1)


def _parse_loads(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        loads = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.3,0.9") from error
    if not all(0.0 < load < 100.0 for load in loads):
        raise click.BadParameter(f"every load must be above 0 and below 100, not {text}")
    return loads


def _parse_hints(_: click.Context, __: click.Parameter, text: str | None) -> float | str | None:
    if text is None or text == NO_HINTS:
        return text
    try:
        error = float(text)
    except ValueError:
        error = -1.0
    if not 0.0 <= error < 10.0:
        raise click.BadParameter(f"must be {NO_HINTS!r} or a standard deviation of at least 0, not {text!r}")
    return error


@main.command(context_settings={"show_default": True})
@click.option("--scenario", default="modern", help="Scenario of the lab, or a YAML file.")
@_work(RunsAs.POD)
@click.option("--trace", help="Trace file, or synthetic:NAME.  [default: what the scenario names]")
@click.option("--policies", default="all", help="Comma-separated names, or all.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, help="Runs of each policy and load.")
@click.option("--seed-base", type=click.IntRange(min=0), default=0, help="The first seed.")
@click.option("--load", "loads", default="0.9", callback=_parse_loads, help="Offered work / capacity: X[,Y..].")
@click.option("--tasks", type=click.IntRange(min=10), help="Number of tasks.  [default: 4000; all of a trace file]")
@click.option(
    "--hints",
    callback=_parse_hints,
    help="Standard deviation of the log-error of hints, or none.  [default: scenario's]",
)
@click.option(
    "--inventory",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="List of machines that become the nodes: CSV with sn, cpu_milli, memory_mib, gpu, model.",
)
@click.option("--pod-start", "pod_start_s", type=click.FloatRange(min=0), help="Seconds.  [default: scenario's]")
@click.option(
    "--resident/--model-load", default=None, help="Models are loaded beforehand, or with the first task of a node."
)
@click.option(
    "--scrape", "scrape_s", type=click.FloatRange(min=0, min_open=True), default=5.0, help="Seconds between readings."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Results as JSON.  [default: in --out]")
@_CACHE
@click.option("--subject", help="Policy that is compared with all others.  [default: the best one]")
@click.option("--processes", type=click.IntRange(min=1), help="Runs at once.  [default: as many as processors]")
def simulate(processes: int | None, **options: Any) -> None:
    """Simulate policies on the lab's hardware without a cluster: same requests for all, much faster than real time."""
    settings = SimulateSettings(**options, processes=processes or os.cpu_count() or 1)
    try:
        run_simulation(settings, Display(Console()), today=date.today())
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


@main.command(context_settings={"show_default": True})
@click.option("--all", "everything", is_flag=True, help="Every figure, which takes most of a day; else the headline.")
@click.option("--only", help="Comma-separated names of figures.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_FOLDER / "figures", help="Folder."
)
@_CACHE
@click.option("--processes", type=click.IntRange(min=1), help="Runs at once.  [default: as many as processors]")
def figures(only: str | None, processes: int | None, **options: Any) -> None:
    """Make the published figures; runs that are complete are kept, so that the command can be interrupted."""
    settings = FigureSettings(**options, only=_split(only or ""), processes=processes or os.cpu_count() or 1)
    try:
        make_figures(settings, Display(Console()), today=date.today())
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


@main.command(context_settings={"show_default": True})
@click.option("--scenarios", default=",".join(SCENARIOS), callback=_parse_names, help="Scenarios, or YAML files.")
@click.option("--policies", default=",".join(TUNABLE), callback=_parse_names, help="Policies to tune.")
@click.option("--load", "loads", default="0.6,0.9,1.2", callback=_parse_loads, help="Offered work / capacity: X[,Y..].")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Runs of each candidate, scenario and load.")
@click.option(
    "--seed-base",
    type=click.IntRange(min=FIRST_SEED),
    default=FIRST_SEED,
    help="The first seed, never one used for judging.",
)
@click.option("--tasks", type=click.IntRange(min=10), default=2500, help="Tasks per run.")
@click.option(
    "--episodes",
    type=click.IntRange(min=0),
    default=36,
    help="Runs on which AGOD is trained jointly; 0 keeps its joint weights.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [default: that of the baselines]"
)
@click.option("--processes", type=click.IntRange(min=1), help="Runs at once.  [default: as many as processors]")
def tune(out: Path | None, processes: int | None, **options: Any) -> None:
    """Find the best parameters of the baselines for each scenario and deployment mode, and train AGOD."""
    settings = TuneSettings(**options, out=out or default_folder(), processes=processes or os.cpu_count() or 1)
    try:
        run_tuning(settings, Display(Console()))
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


@main.command()
@_SCENARIO
@_SPEED
@_SEED
@_FOLDER
@click.option("--fresh", is_flag=True, help="Start over, without the tasks and learned state of earlier runs.")
@click.option(
    "--agents/--no-agents",
    default=True,
    show_default=True,
    help="Every node has a model server, its model loaded, and an agent, so that tasks with a prompt are answered.",
)
def up(scenario: str, speed: float, seed: int, folder: Path, fresh: bool, agents: bool) -> None:
    """Start a lab, with the state it had before, and keep it running until Ctrl-C or `perllm-lab down`."""
    settings = LabSettings(scenario, speed, seed, has_agents=agents)
    _run(_up(settings, folder.absolute(), Display(Console()), fresh=fresh))


@main.command()
@click.argument("journal", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def replay(journal: Path) -> None:
    """Replay what an operator recorded with --record. Exits with 1 if any decision differs."""
    try:
        result = replay_journal(journal)
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{result.inputs} inputs, {result.decisions} decisions, {result.started} tasks started")
    for difference in result.differences[:MAX_SHOWN]:
        click.echo(str(difference))
    if result.differences:
        raise click.ClickException(f"the results of {len(result.differences)} inputs differ from the recorded ones")
    click.echo("every decision is the same as the recorded one")


@main.command()
@_FOLDER
def down(folder: Path) -> None:
    """Stop the lab that `perllm-lab up` started."""
    pid = find_holder(folder / PID_FILE)
    if pid is None:
        click.echo("no lab is running")
        return
    os.kill(pid, signal.SIGTERM)
    click.echo(f"asked lab {pid} to stop")


async def _up(settings: LabSettings, folder: Path, display: Display, *, fresh: bool) -> None:
    binaries = await provide_binaries(COMPONENTS, display)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with claim(folder / PID_FILE):
        if fresh:
            shutil.rmtree(folder / "up", ignore_errors=True)
        lab = Lab(binaries, load_scenario(settings.scenario_name), folder / "up", settings)
        if lab.control_plane.has_data:
            display.say("Resuming the lab with its tasks and what it learned; --fresh starts over")
        async with lab:
            environment = folder / ENVIRONMENT
            environment.write_text(_describe_environment(lab, binaries["kubectl"]), encoding="utf-8")
            display.say(f"Prometheus: {lab.prometheus.url}")
            display.say(f"In another terminal, for KUBECONFIG and kubectl:   source {environment}")
            example = EXAMPLE_REQUEST if settings.has_agents else EXAMPLE_POD
            display.say(GUIDE.format(example=example.format(model=lab.scenario.model), log=lab.operator_log))
            display.say("Stop it with Ctrl-C, or with perllm-lab down from another terminal")
            await _wait_for_end(lab, stop)


def _describe_environment(lab: Lab, kubectl: Path) -> str:
    """Return a file for `source`: the lab's cluster, its programs and ours."""
    folders = f"{kubectl.parent}:{Path(sys.executable).parent}"
    return (
        f"export KUBECONFIG={shlex.quote(str(lab.control_plane.admin_kubeconfig))}\n"
        f"export PERLLM_CONFIG={shlex.quote(str(lab.operator_config))}\n"
        f"export PERLLM_USER={OPERATOR_USER}\n"
        f"export PATH={shlex.quote(folders)}:$PATH\n"
    )


async def _wait_for_end(lab: Lab, stop: asyncio.Event) -> None:
    """Wait until the lab is to stop.

    Raises:
        ProcessError: one of its processes has ended by itself.
    """
    while not stop.is_set():
        for process in (lab.operator, lab.nodes, *lab.control_plane.processes.values()):
            process.check()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_INTERVAL_S)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; expected errors become one message, and Ctrl-C an orderly end."""
    try:
        return asyncio.run(work)
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


if __name__ == "__main__":
    main()
