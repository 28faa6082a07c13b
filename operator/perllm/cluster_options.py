"""Options of commands: files, and the cluster that a command is about."""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import click

_P = ParamSpec("_P")
FILE = click.Path(dir_okay=False, path_type=Path)


def cluster_options(command: Callable[_P, None]) -> Callable[_P, None]:
    """Add the options that select a cluster."""
    command = click.option("--context", help="Context of the kubeconfig.")(command)
    return click.option(
        "--kubeconfig", type=FILE, help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account."
    )(command)
