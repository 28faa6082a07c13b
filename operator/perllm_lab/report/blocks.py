"""Blocks of a page: figures, tables, keys, and numbers with their intervals."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from perllm_lab.report.svg import number, tag

Json = Mapping[str, Any]


def percent(value: float | None) -> str:
    """Return a share as a person writes it."""
    return "-" if value is None else f"{value * 100:.1f} %".replace(".0 %", " %")


def with_interval(spread: Json, unit: Json | None = None) -> str:
    """Return mean ± half of the interval."""
    mean, high = spread["mean"], spread["high"]
    if mean is None:
        return "-"
    is_share = unit is not None and unit["unit"] == "share"
    scale, suffix = (100.0, " %") if is_share else (1.0, "")
    digits = decimals(mean * scale, is_share=is_share)
    half = "" if high is None else f" ±{(high - mean) * scale:,.{digits}f}"
    return f"{mean * scale:,.{digits}f}{half}{suffix}"


def with_range(ratio: Json) -> str:
    """Return a ratio and its interval."""
    if ratio["mean"] is None:
        return "-"
    low, high = ratio["low"], ratio["high"]
    ends = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
    return f"{number(ratio['mean'])}{ends}"


def decimals(value: float, *, is_share: bool = False) -> int:
    """Return how many decimals to show of a value: three significant digits, tenths of a percent."""
    if is_share:
        return 1
    size = abs(value)
    return 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first cell of each row names it."""
    top = tag("thead", tag("tr", *[tag("th", escape(cell), scope="col") for cell in head]))
    lines = [
        tag("tr", tag("th", escape(row[0]), scope="row"), *[tag("td", escape(cell)) for cell in row[1:]])
        for row in rows
    ]
    return tag("div", tag("table", top, tag("tbody", *lines)), class_="scroll")


def figure(caption: str, content: str, note: str = "") -> str:
    """Return a chart with its caption."""
    small = tag("small", escape(note)) if note else ""
    return tag("figure", tag("figcaption", escape(caption), small), content)


def fold(summary: str, content: str) -> str:
    """Return what opens when asked for."""
    return tag("details", tag("summary", escape(summary)), content)


def draw_key(entries: Iterable[tuple[str, str]]) -> str:
    """Return the key of colours: (name, colour)."""
    items = [tag("span", tag("i", style=f"background:{colour}"), escape(name)) for name, colour in entries]
    return tag("div", *items, class_="key")
