"""What the commands ``perllm bill`` and ``perllm report`` do."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import click

from perllm.cluster.client import ApiError
from perllm.cluster.credentials import CredentialsError
from perllm.reporting.bill import read_bill
from perllm.reporting.bill_formats import format_csv, format_json, format_table
from perllm.reporting.increases import LOOK_BACK_S, Past, Period
from perllm.reporting.page import render_page
from perllm.reporting.prometheus import PrometheusAccess, open_prometheus
from perllm.reporting.report import read_report
from perllm.settings_file import ConfigError
from perllm.telemetry.source import TelemetryError

NAMESPACE = "namespace"
"""Label by which Prometheus says where the operator runs; none of the operator's own."""

NO_METRICS = "Prometheus has no metrics of PerLLM in this period: is the operator scraped?"

_T = TypeVar("_T")
_FORMATS = {"table": format_table, "csv": format_csv, "json": format_json}


def print_bill(access: Mapping[str, Any], since_s: float, by: str, output: str) -> None:
    """Print the bill of the last ``since_s`` seconds.

    Args:
        access: fields of PrometheusAccess.
        since_s: length of the period in seconds.
        by: who pays: "namespace" or "label".
        output: "table", "csv" or "json".

    Raises:
        ClickException: Prometheus cannot be asked.
    """
    found = _ask(PrometheusAccess(**access), since_s, lambda past: read_bill(past, by))
    if not found.lines and not found.measured_j:
        click.echo(NO_METRICS, err=True)
    click.echo(_FORMATS[output](found))


def write_report(access: Mapping[str, Any], since_s: float, output: Path) -> None:
    """Write the report of the last ``since_s`` seconds to a file.

    Raises:
        ClickException: Prometheus cannot be asked, or the file cannot be written.
    """
    found = _ask(PrometheusAccess(**access), since_s, read_report)
    if not found.bill.lines and not found.bill.measured_j and not found.shadowed:
        click.echo(NO_METRICS, err=True)
    try:
        output.write_text(render_page(found), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error}") from error
    click.echo(f"{output} written", err=True)


def _ask(access: PrometheusAccess, since_s: float, read: Callable[[Past], Awaitable[_T]]) -> _T:
    """Return what is read from the metrics of the last ``since_s`` seconds."""
    warnings: list[str] = []

    async def ask() -> tuple[_T, str]:
        async with open_prometheus(access, warnings.append) as (source, settings):
            asked = Past(source, Period.last(since_s, time.time()), settings.matchers)
            past = await select_installation(asked, access.namespace)
            return await read(past), describe_gap(past)

    try:
        found, gap = asyncio.run(ask())
    except (ApiError, ConfigError, CredentialsError, TelemetryError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for words in dict.fromkeys((gap, *(f"figures may be incomplete, Prometheus warns: {one}" for one in warnings))):
        if words:
            click.echo(words, err=True)
    return found


async def select_installation(past: Past, namespace: str) -> Past:
    """Return what reads the metrics of one installation of PerLLM; Prometheus may have those of several.

    Raises:
        ConfigError: it has several, and none is in the namespace.
        TelemetryError, ApiError: Prometheus does not answer.
    """
    found = {one.labels.get(NAMESPACE, "") for one in await past.read_values("perllm_active")}
    if len(found) < 2:
        return past
    if namespace not in found:
        raise ConfigError(f"Prometheus has PerLLM in the namespaces {', '.join(sorted(found))}: pass --namespace")
    return past.restrict(**{NAMESPACE: namespace})


def describe_gap(past: Past) -> str:
    """Return since when there are metrics if that is later than the start of the period; else nothing."""
    if past.first_s == inf or past.first_s <= past.period.start_s + past.period.step_s + LOOK_BACK_S:
        return ""
    first = f"{datetime.fromtimestamp(past.first_s, UTC):%Y-%m-%d %H:%M}"
    return f"Prometheus has metrics of PerLLM only since {first} UTC: the figures begin there"
