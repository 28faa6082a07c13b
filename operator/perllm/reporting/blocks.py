"""Blocks of a page: tables, and bars made of boxes. Text goes through `escape` unless it is markup made here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

Markup = str


def tag(name: str, *children: Markup, **attributes: str) -> Markup:
    """Return an element; children are markup already, attribute values are escaped, `class_` stands for `class`,
    and `aria_hidden` for `aria-hidden`.
    """
    listed = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(value, quote=True)}"' for key, value in attributes.items()
    )
    return f"<{name}{listed}>{''.join(children)}</{name}>"


def table(head: Sequence[str], rows: Iterable[Sequence[Markup]], texts: int = 1) -> Markup:
    """Return a table; its cells are markup, the first `texts` of each row words, and the first one names the row."""
    top = tag("thead", tag("tr", *[tag("th", escape(cell), scope="col") for cell in head]))
    body = [tag("tr", tag("th", first, scope="row"), *[tag("td", cell) for cell in cells]) for first, *cells in rows]
    return tag("div", tag("table", top, tag("tbody", *body), class_=f"texts-{texts}"), class_="scroll")


def bar(parts: Mapping[str, float], whole: float) -> Markup:
    """Return a bar of parts, each a class of the style sheet; `whole` fills the width. Screen readers skip it."""
    boxes = [
        tag("i", class_=name, style=f"width:{100 * max(value, 0.0) / whole:.2f}%", title=name)
        for name, value in parts.items()
        if whole > 0 and value > 0
    ]
    return tag("span", *boxes, class_="bar", aria_hidden="true")


def legend(names: Iterable[str]) -> Markup:
    """Return what the colours of bars mean."""
    return tag("p", *[tag("span", tag("i", class_=name), escape(name)) for name in names], class_="legend")
