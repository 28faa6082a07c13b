"""The commands ``perllm top`` and ``perllm explain``."""

import asyncio
import shutil
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import CredentialsError, load_credentials
from perllm.cluster.namespaces import find_default_namespace
from perllm.overview.explanation import explain_task
from perllm.overview.reading import read_task
from perllm.overview.summary import summarise
from perllm.overview.watch import Watch, list_served_models, may_read
from perllm.text import cut

_NAMESPACE = click.option("-n", "--namespace", help="Namespace of the tasks. Default: that of the context.")
_KUBECONFIG = click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account.",
)
_CONTEXT = click.option("--context", help="Context of the kubeconfig.")
_SETTINGS: dict[str, Any] = {"show_default": True}


@click.command(context_settings=_SETTINGS)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Tasks of all namespaces.")
@click.option("--once", is_flag=True, help="Print the overview once, and end.")
@click.option("--interval", "interval_s", type=click.FloatRange(min=0.5), default=2.0, help="Seconds until the next.")
@click.option("--tasks", "rows", type=click.IntRange(min=0), default=15, help="How many tasks are listed.")
@_NAMESPACE
@_KUBECONFIG
@_CONTEXT
def top(
    everywhere: bool,
    once: bool,
    interval_s: float,
    rows: int,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Show nodes, tasks and joules, live until Ctrl-C.

    Counts are of the tasks that still exist: finished ones are deleted after their time to live. It reads the API
    server only. You need the rights to list and watch llminferencetasks and, for the nodes, llmnodeprofiles.
    """
    place = None if everywhere else namespace or _find_namespace(kubeconfig, context)
    interval = None if once else interval_s
    _run(_follow(kubeconfig, context, place, interval, rows))


@click.command(context_settings=_SETTINGS)
@click.argument("task")
@_NAMESPACE
@_KUBECONFIG
@_CONTEXT
def explain(task: str, namespace: str | None, kubeconfig: Path | None, context: str | None) -> None:
    """Explain where TASK runs, why there and not elsewhere, why it waited, and what it cost; or what it waits for.

    You need the right to get llminferencetasks.
    """
    name = task.rpartition("/")[2]
    _run(_explain(kubeconfig, context, namespace or _find_namespace(kubeconfig, context), name))


async def read_explanation(client: Client, namespace: str, name: str) -> list[str]:
    """Return the explanation of a task, line by line.

    Raises:
        ApiError: it cannot be read.
        ValueError: its status cannot be understood.
    """
    task = read_task(await client.get(names.task_path(namespace, name)))
    models = await list_served_models(client) if task.status.node_name is None else []
    return explain_task(task, time.time(), models)


async def _explain(kubeconfig: Path | None, context: str | None, namespace: str, name: str) -> None:
    async with Client(load_credentials(kubeconfig, context)) as client:
        for line in await read_explanation(client, namespace, name):
            click.echo(line)


async def _follow(
    kubeconfig: Path | None, context: str | None, namespace: str | None, interval_s: float | None, rows: int
) -> None:
    async with Client(load_credentials(kubeconfig, context)) as client:
        await client.get(names.tasks_path(namespace), limit="1")  # the watch would try again for ever
        has_nodes = await may_read(client, names.node_profiles_path())
        watch = Watch(client, namespace, has_nodes=has_nodes)
        where = "all namespaces" if namespace is None else f"namespace {namespace}"

        def show() -> None:
            lines = summarise(watch.tasks, watch.nodes, time.time(), rows=rows, where=where)
            lines += [] if has_nodes else ["", "The nodes are not shown: you may not list llmnodeprofiles."]
            _display(lines, is_live=interval_s is not None)

        await watch.run(show, interval_s=interval_s)


def _display(lines: list[str], *, is_live: bool) -> None:
    """Print the lines; a live overview replaces the last one, and is cut where the screen ends."""
    if is_live and sys.stdout.isatty():
        size = shutil.get_terminal_size()
        click.clear()
        lines = [cut(line, size.columns) for line in lines[: size.lines - 1]]
    click.echo("\n".join(lines))


def _find_namespace(kubeconfig: Path | None, context: str | None) -> str:
    try:
        return find_default_namespace(kubeconfig, context)
    except CredentialsError as error:
        raise click.ClickException(str(error)) from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except (CredentialsError, ApiError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error
