"""The commands ``perllm top`` and ``perllm explain``; what they do is imported when they run."""

import re
from pathlib import Path
from typing import Any

import click

from perllm.cluster_options import cluster_options

_NAMESPACE = click.option("-n", "--namespace", help="Namespace of the tasks. Default: that of the context.")
_NAME = re.compile("[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_SETTINGS: dict[str, Any] = {"show_default": True}


@click.command(context_settings=_SETTINGS)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Tasks of all namespaces.")
@click.option("--once", is_flag=True, help="Print the overview once, and end.")
@click.option("--interval", "interval_s", type=click.FloatRange(min=0.5), default=2.0, help="Seconds until the next.")
@click.option("--tasks", "rows", type=click.IntRange(min=0), default=15, help="How many tasks are listed.")
@_NAMESPACE
@cluster_options
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

    Counts are of the tasks that still exist: finished ones are deleted after their time to live. You need the rights to
    list and watch llminferencetasks and, for the nodes, llmnodeprofiles.
    """
    from perllm.overview.display import ClusterAccess, show_overview

    access = ClusterAccess(kubeconfig, context, namespace)
    show_overview(access, everywhere=everywhere, interval_s=None if once else interval_s, rows=rows)


@click.command(context_settings=_SETTINGS)
@click.argument("task")
@_NAMESPACE
@cluster_options
def explain(task: str, namespace: str | None, kubeconfig: Path | None, context: str | None) -> None:
    """Explain where TASK runs, why there and not elsewhere, why it waited, and what it cost; or what it waits for.

    TASK is a name, as kubectl prints it or as perllm top does: hello, llmtask/hello or NAMESPACE/hello. You need the
    right to get llminferencetasks.
    """
    from perllm.api.names import is_task_kind
    from perllm.overview.display import ClusterAccess, show_explanation

    place, _, name = task.rpartition("/")
    if not _NAME.fullmatch(name):
        words = f"{task!r} is not the name of a task: write hello, llmtask/hello or NAMESPACE/hello"
        raise click.BadParameter(words, param_hint="TASK")
    named = "" if is_task_kind(place) else place
    if named and namespace not in (None, named):
        raise click.BadParameter(f"{task} is of namespace {named}, not {namespace}", param_hint="--namespace")
    show_explanation(ClusterAccess(kubeconfig, context, namespace or named or None), name)
