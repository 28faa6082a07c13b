"""The command line of the lab."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from perllm.cluster.client import ApiError
from perllm_lab.demo import DemoSettings, provide_binaries, run_demo
from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.kubernetes.build import ToolchainError
from perllm_lab.kubernetes.process import ProcessError
from perllm_lab.lab import COMPONENTS, Lab, LabSettings
from perllm_lab.replay import ReplayError
from perllm_lab.report.progress import Display
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.trace import TraceError

DEFAULT_FOLDER = Path(".lab")
PID_FILE = "lab.pid"
EXPECTED = (ToolchainError, ProcessError, ScenarioError, TraceError, ReplayError, ApiError, OSError)

_FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the lab keeps its files.",
)
_SCENARIO = click.option("--scenario", default="modern", show_default=True, help="modern, paper, or a YAML file.")
_SPEED = click.option(
    "--speed",
    type=click.FloatRange(min=0.1, max=20),
    default=2.0,
    show_default=True,
    help="How many times as fast as real the simulated hardware is.",
)
_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="perllm")
def main() -> None:
    """An edge-cloud on a laptop: a real control plane and Prometheus, simulated GPU nodes, the real operator."""


@main.command()
@_SCENARIO
@_SPEED
@_SEED
@_FOLDER
@click.option("--tasks", type=click.IntRange(min=1), default=300, show_default=True, help="How many tasks.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace to replay: CSV with TIMESTAMP, ContextTokens, GeneratedTokens (also .gz). Synthetic without it.",
)
def demo(scenario: str, speed: float, seed: int, folder: Path, tasks: int, trace: Path | None) -> None:
    """Place the same tasks with PerLLM and with the plain kube-scheduler, and compare."""
    settings = DemoSettings(scenario, tasks, trace, speed, seed, (folder / "demo").absolute())
    faults = _run(run_demo(settings, Display(Console())))
    for fault in faults:
        click.echo(f"FAULT: {fault}", err=True)
    if faults:
        raise SystemExit(1)


@main.command()
@_SCENARIO
@_SPEED
@_SEED
@_FOLDER
def up(scenario: str, speed: float, seed: int, folder: Path) -> None:
    """Start a lab and keep it running until Ctrl-C or `perllm-lab down`."""
    (folder / "up").mkdir(parents=True, exist_ok=True)
    _run(_up(scenario, LabSettings(scenario, speed, seed), (folder / "up").absolute(), Display(Console())))


@main.command()
@_FOLDER
def down(folder: Path) -> None:
    """Stop the lab that `perllm-lab up` started."""
    file = folder / "up" / PID_FILE
    try:
        pid = int(file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        click.echo("no lab is running")
    else:
        click.echo(f"lab {pid} was told to stop")


async def _up(scenario_name: str, settings: LabSettings, folder: Path, display: Display) -> None:
    binaries = await provide_binaries(COMPONENTS, display)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Lab(binaries, load_scenario(scenario_name), folder, settings) as lab:
        (folder / PID_FILE).write_text(str(os.getpid()))
        try:
            display.say(f"export KUBECONFIG={lab.control_plane.admin_kubeconfig}")
            display.say(f"kubectl: {binaries['kubectl']}    prometheus: {lab.prometheus.url}")
            display.say("try: kubectl apply -f examples/   kubectl get llmtasks -w   kubectl get llmnodes")
            display.say("Ctrl-C, or perllm-lab down from elsewhere, ends it")
            await stop.wait()
        finally:
            (folder / PID_FILE).unlink(missing_ok=True)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; failures that can be expected become one message, Ctrl-C ends everything in order."""
    try:
        return asyncio.run(work)
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


if __name__ == "__main__":
    main()
