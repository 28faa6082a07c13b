"""Blocks of a page: figures, tables, folds. Text goes through `escape` unless it is markup made here or a chart."""

from collections.abc import Iterable, Sequence
from html import escape


def tag(name: str, *children: str, **attributes: str) -> str:
    """Return an element; children are markup already, attribute values are escaped, `class_` stands for `class`."""
    listed = "".join(f' {key.strip("_")}="{escape(value, quote=True)}"' for key, value in attributes.items())
    return f"<{name}{listed}>{''.join(children)}</{name}>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first cell of each row names it."""
    top = tag("thead", tag("tr", *[tag("th", escape(cell), scope="col") for cell in head]))
    lines = [
        tag("tr", tag("th", escape(row[0]), scope="row"), *[tag("td", escape(cell)) for cell in row[1:]])
        for row in rows
    ]
    return tag("div", tag("table", top, tag("tbody", *lines)), class_="scroll")


def figure(caption: str, chart: str | None, note: str = "") -> str:
    """Return a chart with its caption, or a remark where there was nothing to draw."""
    small = tag("small", escape(note)) if note else ""
    return tag("figure", tag("figcaption", escape(caption), small), chart or tag("p", "no figures"))


def fold(summary: str, content: str) -> str:
    """Return content that is shown on demand."""
    return tag("details", tag("summary", escape(summary)), content)
