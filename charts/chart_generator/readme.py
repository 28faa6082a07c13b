"""The README of the chart: hand-written text, and tables of all values."""

from chart_generator.entries import ChartValue, list_entries
from chart_generator.render import render_table
from chart_generator.values import Values

_MARK = "<!-- values -->"


def render_readme(template: str) -> str:
    """Insert the tables of all values into the hand-written text."""
    entries = list(list_entries(Values()))
    single = render_table(entry for entry in entries if not entry.children)
    tables = [single, *(_render_section(entry) for entry in entries if entry.children)]
    return template.replace(_MARK, "\n".join(tables))


def _render_section(section: ChartValue) -> str:
    return f"### `{section.key}`\n\n{section.description}\n\n{render_table([section])}"
