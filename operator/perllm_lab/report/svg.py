"""Pieces of SVG and HTML as text. Whatever is not made here goes through `escape`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

Value = str | float | int
# Digits and letters of the fonts of a system are this wide at 12 px on average.
LETTER_PX = 6.6


def tag(name: str, *children: str, **attributes: Value) -> str:
    """Return an element; children are markup already, attribute values are escaped, `_` in names becomes `-`."""
    listed = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_short(value), quote=True)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{listed}>{''.join(children)}</{name}>"


def text(x: float, y: float, content: str, **attributes: Value) -> str:
    """Return a text of a drawing."""
    return tag("text", escape(content), x=x, y=y, **attributes)


def hint(content: str) -> str:
    """Return what is shown of an element under the pointer, and read out."""
    return tag("title", escape(content))


def path(points: Sequence[tuple[float, float]], **attributes: Value) -> str:
    """Return a line through points."""
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), **attributes)


def drawing(width: float, height: float, label: str, *children: str) -> str:
    """Return a drawing that shrinks with the page."""
    box = f"0 0 {width:.0f} {height:.0f}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=label, style=f"max-width:{width:.0f}px")


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        low: value at `start_px`.
        high: value at `end_px`.
        log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value, kept within the axis."""
        change: Callable[[float], float] = log10 if self.log else float
        inside = min(max(value, self.low), self.high)
        part = (change(inside) - change(self.low)) / (change(self.high) - change(self.low))
        return self.start_px + part * (self.end_px - self.start_px)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions near the `wanted` ones that are `gap` apart, in `low` to `high` as far as they fit."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    places = [0.0] * len(wanted)
    last = low - gap
    for at in order:
        last = places[at] = max(wanted[at], last + gap)
    last = high + gap
    for at in reversed(order):
        last = places[at] = min(places[at], last - gap)
    return places


def number(value: float | None) -> str:
    """Return a value with three significant digits, as a person writes it."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, 2 - floor(log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def tick(value: float | None) -> str:
    """Return a round value of an axis."""
    return "-" if value is None else f"{value:,.6f}".rstrip("0").rstrip(".")


def _short(value: Value) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [round(at * step, 10) for at in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) <= 9 else [value for value in inside if log10(value) % 1 < 1e-9]
