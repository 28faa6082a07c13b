"""Commands that need no cluster: simulations and what is made of them."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from perllm.api.task_status import RunsAs
from perllm.scheduling.journal import JournalError
from perllm_lab.cli.options import (
    DEFAULT_FOLDER,
    FiniteRange,
    cache_option,
    expected_failures,
    parse_names,
    split,
    work_option,
)
from perllm_lab.figures import FigureSettings, make_figures
from perllm_lab.report.progress import Display
from perllm_lab.simulate import NO_HINTS, SimulateSettings, run_simulation
from perllm_lab.simulator.journal_replay import replay_journal
from perllm_lab.tuning.trials import FIRST_SEED, SCENARIOS, TUNABLE, TuneSettings, default_folder, run_tuning

MIN_LOAD = 0.001
"""At less, the tasks come over years, of which every scrape is simulated."""

MAX_SHOWN = 20
"""Differences of a replay that are shown."""


def _parse_loads(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        loads = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.3,0.9") from error
    if not all(MIN_LOAD <= load < 100.0 for load in loads):
        raise click.BadParameter(f"every load must be at least {MIN_LOAD:g} and below 100, not {text}")
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


@click.command(context_settings={"show_default": True})
@click.option("--scenario", default="modern", help="Scenario of the lab, or a YAML file.")
@work_option(RunsAs.REQUEST)
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
@click.option(
    "--pod-start",
    "pod_start_s",
    type=FiniteRange(min=0, max=3600),
    help="Seconds a pod takes to start.  [default: scenario's]",
)
@click.option(
    "--resident/--model-load", default=None, help="Models are loaded beforehand, or with the first task of a node."
)
@click.option("--scrape", "scrape_s", type=FiniteRange(min=0.1), default=5.0, help="Seconds between readings.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Results as JSON.  [default: in --out]")
@cache_option
@click.option("--subject", help="Policy that is compared with all others.  [default: the best one]")
@click.option("--processes", type=click.IntRange(min=1), help="Runs in parallel.  [default: number of CPUs]")
def simulate(processes: int | None, **options: Any) -> None:
    """Simulate policies on the lab's hardware without a cluster, all with the same requests, faster than real time."""
    if options["pod_start_s"] is not None and options["runs_as"] is RunsAs.REQUEST:
        raise click.UsageError("requests have no pod that starts: add --work pods, or leave --pod-start out")
    settings = SimulateSettings(**options, processes=processes or os.cpu_count() or 1)
    with expected_failures():
        run_simulation(settings, Display(Console()), today=date.today())


@click.command(context_settings={"show_default": True})
@click.option(
    "--all", "everything", is_flag=True, help="All figures, which takes most of a day, instead of the headline."
)
@click.option("--only", help="Comma-separated names of figures.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_FOLDER / "figures", help="Folder."
)
@cache_option
@click.option("--processes", type=click.IntRange(min=1), help="Runs in parallel.  [default: number of CPUs]")
def figures(only: str | None, processes: int | None, **options: Any) -> None:
    """Produce the published figures. Complete runs are kept, so the command can be interrupted and repeated."""
    settings = FigureSettings(**options, only=split(only or ""), processes=processes or os.cpu_count() or 1)
    with expected_failures():
        make_figures(settings, Display(Console()), today=date.today())


@click.command(context_settings={"show_default": True})
@click.option("--scenarios", default=",".join(SCENARIOS), callback=parse_names, help="Scenarios, or YAML files.")
@click.option("--policies", default=",".join(TUNABLE), callback=parse_names, help="Policies to tune.")
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
@click.option("--processes", type=click.IntRange(min=1), help="Runs in parallel.  [default: number of CPUs]")
def tune(out: Path | None, processes: int | None, **options: Any) -> None:
    """Find the best parameters of the baselines for each scenario and deployment mode, and train AGOD."""
    settings = TuneSettings(**options, out=out or default_folder(), processes=processes or os.cpu_count() or 1)
    with expected_failures():
        run_tuning(settings, Display(Console()))


@click.command()
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
