"""The README of the chart: what people write, and tables of all values."""

from perllm_lab.chart.entries import ChartValue, list_entries
from perllm_lab.chart.render import render_table
from perllm_lab.chart.values import Values

_MARK = "<!-- values -->"


def render_readme(template: str) -> str:
    """Fill the tables of all values into the hand-written text."""
    entries = list(list_entries(Values()))
    single = render_table(entry for entry in entries if not entry.children)
    tables = [single, *(_render_section(entry) for entry in entries if entry.children)]
    return template.replace(_MARK, "\n".join(tables))


def _render_section(section: ChartValue) -> str:
    return f"### `{section.key}`\n\n{section.description}\n\n{render_table([section])}"
