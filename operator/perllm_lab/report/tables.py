"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from math import isnan

from rich.table import Table

from perllm_lab.report.results import EnergyErrors, FleetEnergy, RequestResult, Summary, by_tier, summarize


def compare(runs: Mapping[str, Sequence[RequestResult]], fleets: Mapping[str, FleetEnergy]) -> Table:
    """Return a table of the schedulers, overall and by tier."""
    window_s = max(fleet.window_s for fleet in fleets.values())
    # Without lines between the columns it fits the 80 columns of a log.
    table = Table(title="The same tasks on the same nodes", title_justify="left", box=None)
    table.add_column("scheduler", no_wrap=True)
    table.add_column("tier")
    for heading in ("tasks", "in time", "tokens", "p50 s", "p95 s", "J/task", "fleet J"):
        table.add_column(heading, justify="right")
    for name, own in runs.items():
        met = sum(run.met for run in own)
        fleet_j = f"{fleets[name].over(window_s) / met:,.0f}" if met else "-"
        _add(table, name, "all", summarize(own), fleet_j)
        for tier, members in sorted(by_tier(own).items()):
            _add(table, "", tier, summarize(members), "")
        table.add_section()
    return table


def describe_energy(errors: EnergyErrors) -> str:
    """Return one line on how well energy was measured."""
    if not errors.compared:
        return f"Energy: none of {errors.missing} tasks could be measured; is Prometheus up?"
    return (
        f"Energy measured through Prometheus against the ground truth: median error {errors.median:.1%}, "
        f"p90 {errors.p90:.1%}, bias {errors.bias:+.1%}, {errors.compared} tasks, {errors.missing} not measured"
    )


def _add(table: Table, name: str, tier: str, summary: Summary | None, fleet_j: str) -> None:
    if summary is None:
        return
    table.add_row(
        name,
        tier,
        str(summary.tasks),
        f"{summary.met_share:.1%}",
        f"{summary.token_met_share:.1%}",
        _show(summary.latency_p50_s, ".2f"),
        _show(summary.latency_p95_s, ".2f"),
        _show(summary.energy_j, ",.0f"),
        fleet_j,
    )


def _show(value: float, digits: str) -> str:
    """Return a figure; a dash where nothing was complete."""
    return "-" if isnan(value) else format(value, digits)
