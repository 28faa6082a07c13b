"""What the commands ``perllm top`` and ``perllm explain`` do."""

import asyncio
import shutil
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
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

OTHER_LINES = 12
"""Lines of an overview that are neither nodes nor tasks, at most."""

MIN_NODES = 3
"""Nodes that are shown on the smallest screen."""

OUTDATED = "NOT CURRENT: the API server cannot be watched, so this is what was known last; retrying"


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Which cluster, and which namespace there.

    Attributes:
        kubeconfig: kubeconfig of the cluster; None for where kubectl would look, or the pod's account.
        context: context of the kubeconfig.
        namespace: namespace that was named; None for that of the context.
    """

    kubeconfig: Path | None
    context: str | None
    namespace: str | None

    def open(self) -> Client:
        """Return a client that is not connected yet.

        Raises:
            CredentialsError: there are no usable credentials.
        """
        return Client(load_credentials(self.kubeconfig, self.context))

    def find_namespace(self) -> str:
        """Return the namespace to work in.

        Raises:
            CredentialsError: the kubeconfig cannot be read, or has no such context.
        """
        return self.namespace or find_default_namespace(self.kubeconfig, self.context)


def show_overview(access: ClusterAccess, *, everywhere: bool, interval_s: float | None, rows: int) -> None:
    """Print nodes and tasks, again after every interval; once if that is None.

    Raises:
        ClickException: they cannot be read.
    """
    _run(_follow(access, everywhere, interval_s, rows))


def show_explanation(access: ClusterAccess, name: str) -> None:
    """Print the explanation of a task.

    Raises:
        ClickException: it cannot be read.
    """
    _run(_explain(access, name))


async def read_explanation(client: Client, namespace: str, name: str) -> list[str]:
    """Return the explanation of a task, line by line.

    Raises:
        ApiError: it cannot be read.
        ValueError: its status cannot be understood.
    """
    task = read_task(await client.get(names.task_path(namespace, name)))
    models = await list_served_models(client) if task.status.node_name is None else []
    return explain_task(task, time.time(), models)


async def _explain(access: ClusterAccess, name: str) -> None:
    namespace = access.find_namespace()
    async with access.open() as client:
        for line in await read_explanation(client, namespace, name):
            click.echo(line)


async def _follow(access: ClusterAccess, everywhere: bool, interval_s: float | None, rows: int) -> None:
    namespace = None if everywhere else access.find_namespace()
    async with access.open() as client:
        await client.get(names.tasks_path(namespace), limit="1")  # the watch would retry forever
        has_nodes = await may_read(client, names.node_profiles_path())
        watch = Watch(client, namespace, has_nodes=has_nodes)
        where = "all namespaces" if namespace is None else f"namespace {namespace}"

        def show() -> None:
            most_nodes = find_room(rows) if interval_s is not None else None
            lines = summarise(watch.tasks, watch.nodes, time.time(), rows=rows, where=where, most_nodes=most_nodes)
            lines += [] if has_nodes else ["", "The nodes are not shown: you may not list llmnodeprofiles."]
            if not watch.is_current:
                lines.insert(0, OUTDATED)
            _display(lines, is_live=interval_s is not None)

        await watch.run(show, interval_s=interval_s)


def find_room(rows: int) -> int | None:
    """Return how many nodes a screen has room for next to so many tasks; None if it is no screen."""
    if not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().lines - rows - OTHER_LINES, MIN_NODES)


def _display(lines: list[str], *, is_live: bool) -> None:
    """Print the lines; a live overview replaces the last one, and is cut where the screen ends."""
    if is_live and sys.stdout.isatty():
        size = shutil.get_terminal_size()
        click.clear()
        lines = [cut(line, size.columns) for line in lines[: size.lines - 1]]
    click.echo("\n".join(lines))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except (CredentialsError, ApiError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error
