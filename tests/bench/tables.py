"""What was measured, and how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a ratio of two contenders in one run, or an absolute figure of this machine.

    Attributes:
        what: what was measured, fakes named.
        values: the figure of every turn.
        unit: "x" for a ratio.
        expected: what it should be, in words; empty for figures that only explain.
        detail: the figures behind it.
    """

    what: str
    values: Sequence[float]
    unit: str
    expected: str = ""
    detail: str = ""


def render(rows: Sequence[Row]) -> Table:
    """Return the table: median and range of the turns."""
    table = Table(title="Ratios are of one run; figures with a unit are of this machine only", title_justify="left")
    table.add_column("what")
    for heading in ("median", "range", "expected"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("detail")
    for row in rows:
        spread = f"{_number(min(row.values))} - {_number(max(row.values))}" if len(row.values) > 1 else ""
        table.add_row(row.what, f"{_number(median(row.values))} {row.unit}", spread, row.expected, row.detail)
    return table


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
