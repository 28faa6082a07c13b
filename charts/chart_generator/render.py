"""values.yaml and the tables of the README, from the entries."""

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from chart_generator.entries import ChartValue

_WIDTH = 120
_INDENT = "  "


def render_values(entries: Iterable[ChartValue], depth: int = 0) -> str:
    """Render values as YAML, each below its description, with blank lines between those of the first level."""
    return ("\n" if depth == 0 else "").join(_render_entry(entry, depth) for entry in entries)


def render_table(entries: Iterable[ChartValue]) -> str:
    """Render values, including those in sections, as a Markdown table."""
    rows = "".join(
        f"| `{path}` | {_escape(one.description)} | {_render_default(one.default)} |\n"
        for entry in entries
        for path, one in _flatten(entry)
    )
    return f"| Value | Description | Default |\n| --- | --- | --- |\n{rows}"


def _render_entry(entry: ChartValue, depth: int) -> str:
    margin = _INDENT * depth
    comment = textwrap.fill(entry.description, _WIDTH, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# ")
    if entry.children:
        return f"{comment}\n{margin}{entry.key}:\n{render_values(entry.children, depth + 1)}"
    text = yaml.safe_dump({entry.key: entry.default}, sort_keys=False, width=4 * _WIDTH, allow_unicode=True)
    return f"{comment}\n{textwrap.indent(text, margin)}"


def _flatten(entry: ChartValue, prefix: str = "") -> Iterator[tuple[str, ChartValue]]:
    path = f"{prefix}{entry.key}"
    if not entry.children:
        yield path, entry
    for child in entry.children:
        yield from _flatten(child, f"{path}.")


def _render_default(default: Any) -> str:
    return f"`{_escape(json.dumps(default))}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
