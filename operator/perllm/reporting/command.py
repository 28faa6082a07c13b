"""The commands ``perllm bill`` and ``perllm report``; what they do is imported once they run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import click

from perllm.api.quantities import parse_duration_s
from perllm.cluster_options import FILE, cluster_options

DAY_S = 86400.0
MAX_SINCE_S = 400 * DAY_S

_P = ParamSpec("_P")


def _read_since(_: click.Context, __: click.Parameter, text: str) -> float:
    days = re.fullmatch("([0-9]{1,3})d", text)
    try:
        since_s = int(days[1]) * DAY_S if days else parse_duration_s(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, or in whole days 7d") from error
    if not 0 < since_s <= MAX_SINCE_S:
        raise click.BadParameter("must be more than 0 and at most 400d")
    return since_s


def _with_prometheus(command: Callable[_P, None]) -> Callable[_P, None]:
    """Add the options by which a command finds Prometheus, and the period that it asks about."""
    options = (
        click.option(
            "--since",
            "since_s",
            default="24h",
            callback=_read_since,
            show_default=True,
            help="How far back, such as 90m or 7d.",
        ),
        click.option(
            "--prometheus",
            "url",
            help="URL of Prometheus as seen from here. If it has several clusters, pass --config as well, whose "
            "telemetry.matchers select one.",
        ),
        click.option("--config", "config_file", type=FILE, help="Configuration file (YAML) of the operator."),
        cluster_options,
        click.option(
            "--namespace", default="perllm-system", show_default=True, help="Namespace that PerLLM is installed in."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@_with_prometheus
@click.option(
    "--by",
    type=click.Choice(["namespace", "label"]),
    default="namespace",
    show_default=True,
    help="Who pays: namespaces, or values of the label in config.bill.label.",
)
@click.option(
    "--output", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True, help="Format."
)
def bill(since_s: float, by: str, output: str, **access: Any) -> None:
    """Print what tasks took: energy, tokens and deadlines, by namespace or by label.

    Without --prometheus and --config, the address of Prometheus is read from the configuration in the cluster, and
    Prometheus is asked through the API server. That takes the rights to list configmaps in the namespace of PerLLM, and
    to get services/proxy in that of Prometheus.
    """
    from perllm.reporting.printing import print_bill

    print_bill(access, since_s, by, output)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@_with_prometheus
@click.option("--output", type=FILE, required=True, help="File for the report, such as report.html.")
def report(since_s: float, output: Path, **access: Any) -> None:
    """Write what the cluster did to one HTML file: deadlines, energy, savings, promises, and what would help.

    The file needs no network to be read. For the options about Prometheus see perllm bill --help.
    """
    from perllm.reporting.printing import write_report

    write_report(access, since_s, output)
