"""Commands that start a whole cluster: the demo and the lab."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from perllm.api.task_status import RunsAs
from perllm_lab.claim import claim, find_holder
from perllm_lab.cli.options import (
    FiniteRange,
    folder_option,
    parse_names,
    run,
    scenario_option,
    seed_option,
    speed_option,
    work_option,
)
from perllm_lab.demo import CONTENDERS, OPERATOR_POLICIES, DemoSettings, provide_binaries, run_demo
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import COMPONENTS, Lab, LabSettings, remove_lab
from perllm_lab.policies import configure_operator
from perllm_lab.report.progress import Display
from perllm_lab.workload.scenarios import load_scenario, scenario_names

PID_FILE = "lab.pid"
ENVIRONMENT = "env"
WATCH_INTERVAL_S = 2.0
EXAMPLE_REQUEST = """\
  kubectl perllm submit --model {model} --deadline 30s --prompt "Which is the largest planet?" --wait"""
EXAMPLE_POD = """\
  kubectl apply -f examples/task.yaml"""
EXAMPLES = ("task.yaml", "batch-of-tasks.yaml", "job.yaml")
"""Files of `examples` that need nothing that a lab lacks; the guide names them."""

GUIDE = """\
There, try:
{example}
  kubectl perllm top                     nodes, tasks and joules, live
  kubectl perllm explain TASK            where it ran, why there, what it cost
  perllm doctor                          what is missing; nothing, in a lab
  kubectl apply -f examples/{first}    a task with a pod; others are
                                         {others}
  kubectl get events --watch --field-selector reason=Placed       decisions
The answers are made-up words, since model servers are simulated like the GPUs.
All decisions are logged in {log}"""


def _parse_contenders(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = parse_names(context, parameter, text)
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise click.BadParameter(f"there is no {', '.join(unknown)}; choose from {', '.join(CONTENDERS)}")
    return names


@click.command()
@click.option("--scenario", default="demo", show_default=True, help=f"{', '.join(scenario_names())}, or a YAML file.")
@speed_option
@seed_option
@folder_option
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
    type=FiniteRange(min=0.01, max=2),
    default=0.8,
    show_default=True,
    help="Offered work as a share of what the nodes can do.",
)
@click.option("--tasks", type=click.IntRange(min=1), default=300, show_default=True, help="Number of tasks.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace to replay: CSV or JSON Lines with TIMESTAMP, ContextTokens, GeneratedTokens (also .gz). Synthetic "
    "without it.",
)
@work_option(RunsAs.REQUEST)
@click.option("--strict", is_flag=True, help="Let PerLLM reject tasks, and end them at their deadline.")
def demo(folder: Path, **options: Any) -> None:
    """Place the same tasks with policies of PerLLM and with the plain kube-scheduler, and compare."""
    settings = DemoSettings(**options, folder=(folder / "demo").absolute())
    faults = run(_demo(settings, Display(Console())))
    for fault in faults:
        click.echo(f"FAULT: {fault}", err=True)
    if faults:
        raise SystemExit(1)


@click.command()
@scenario_option
@speed_option
@seed_option
@folder_option
@click.option(
    "--policy",
    type=click.Choice(OPERATOR_POLICIES),
    default=OPERATOR_POLICIES[0],
    show_default=True,
    help="Policy of the operator. A lab has one; the demo compares several.",
)
@click.option("--fresh", is_flag=True, help="Start over, without the tasks and learned state of earlier runs.")
@click.option(
    "--agents/--no-agents",
    default=True,
    show_default=True,
    help="Every node has a model server, its model loaded, and an agent, so that tasks with a prompt are answered.",
)
def up(scenario: str, speed: float, seed: int, folder: Path, policy: str, fresh: bool, agents: bool) -> None:
    """Start a lab, with the state it had before, and keep it running until Ctrl-C or `perllm-lab down`."""
    config = {"policy": configure_operator(policy, scenario)}
    settings = LabSettings(scenario, speed, seed, operator_config=config, has_agents=agents)
    run(_up(settings, folder.absolute(), Display(Console()), fresh=fresh))


@click.command()
@folder_option
def down(folder: Path) -> None:
    """Stop the lab that `perllm-lab up` started."""
    pid = find_holder(folder / PID_FILE)
    if pid is None:
        click.echo("no lab is running")
        return
    os.kill(pid, signal.SIGTERM)
    click.echo(f"asked lab {pid} to stop")


async def _demo(settings: DemoSettings, display: Display) -> list[str]:
    with claim(settings.folder / PID_FILE):
        return await run_demo(settings, display)


async def _up(settings: LabSettings, folder: Path, display: Display, *, fresh: bool) -> None:
    # Before programs are built for minutes, and before an earlier lab is removed.
    scenario = load_scenario(settings.scenario_name)
    binaries = await provide_binaries(COMPONENTS, display)
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with claim(folder / PID_FILE):
        if fresh:
            remove_lab(folder / "up")
        lab = Lab(binaries, scenario, folder / "up", settings)
        if lab.control_plane.has_data:
            display.say("Resuming the lab with its tasks and what it learned; --fresh starts over")
        # A signal ends the lab at any time, also while it starts.
        with suppress(asyncio.CancelledError):
            async with lab:
                _describe_lab(lab, folder, binaries["kubectl"], display)
                await _watch(lab.processes)
        display.say("Stopped; started again, the lab goes on from here")


def _describe_lab(lab: Lab, folder: Path, kubectl: Path, display: Display) -> None:
    environment = folder / ENVIRONMENT
    environment.write_text(_describe_environment(lab, kubectl), encoding="utf-8")
    display.say(f"Prometheus: {lab.prometheus.url}")
    display.say(f"In another terminal, for KUBECONFIG and kubectl:   source {environment}")
    example = EXAMPLE_REQUEST if lab.settings.has_agents else EXAMPLE_POD
    first, *others = EXAMPLES
    words = {"first": first, "others": ", ".join(others), "log": lab.operator_log}
    display.say(GUIDE.format(example=example.format(model=lab.scenario.model), **words))
    display.say("Stop it with Ctrl-C, or with perllm-lab down from another terminal")


def _describe_environment(lab: Lab, kubectl: Path) -> str:
    """Return a file for `source`: the lab's cluster, its programs and ours."""
    folders = f"{kubectl.parent}:{Path(sys.executable).parent}"
    return (
        f"export KUBECONFIG={shlex.quote(str(lab.control_plane.admin_kubeconfig))}\n"
        f"export PERLLM_CONFIG={shlex.quote(str(lab.operator_config))}\n"
        f"export PERLLM_USER={OPERATOR_USER}\n"
        f"export PATH={shlex.quote(folders)}:$PATH\n"
    )


async def _watch(processes: Sequence[Process]) -> None:
    """Wait until one of the processes ends by itself.

    Raises:
        ProcessError: one has; the message quotes the end of its log.
    """
    while True:
        for process in processes:
            process.check()
        await asyncio.sleep(WATCH_INTERVAL_S)
