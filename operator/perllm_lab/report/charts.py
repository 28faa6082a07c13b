"""Charts of a report, drawn by matplotlib as SVG elements without scripts. Pure functions of their data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from io import StringIO
from math import ceil, nan

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from perllm_lab.report.style import INK, SOFT, Look

WIDTH_IN = 6.2
LINES_IN = 3.3
ROW_IN = 0.23
NAME_IN = 0.15
LEGEND_IN = 0.2
LEGEND_COLUMNS = 3
MARGIN_IN = 0.7
LEAST_LABELLED = 0.1

PLAIN, PERCENT = "{x:,g}", "{x:.0%}"
"""Formats of the figures at an axis."""

STYLE = "chart.mplstyle"
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with the ends of its interval; None is not known. `shown` is its figure as a person reads it."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    shown: str
    colour: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part of all bars of a chart; it has one value per bar."""

    name: str
    values: Sequence[float]
    colour: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line; y, low and high have one entry per x, None where it is not known."""

    name: str
    look: Look
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds lines: title of the x axis, scales, limits of y where given, marks at values of x."""

    x_title: str
    format: str = PLAIN
    log_x: bool = False
    log_y: bool = False
    y_limits: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = ()


def draw_bars(bars: Sequence[Bar], axis_format: str = PLAIN) -> str | None:
    """Return horizontal bars with intervals; a bar far beyond the others is cut and marked. None without figures."""
    values = [bar.value for bar in bars if bar.value is not None]
    if not values:
        return None
    limit = _limit_bars(values, [bar.high for bar in bars if bar.high is not None])

    def paint(axes: Axes) -> None:
        lengths = [bar.value or 0.0 for bar in bars]
        axes.barh([bar.name for bar in bars], lengths, height=0.65, color=[bar.colour for bar in bars], alpha=0.85)
        for row, bar in enumerate(bars):
            end = lengths[row]
            if bar.low is not None and bar.high is not None and end <= limit:
                axes.plot((bar.low, bar.high), (row, row), color=INK, linewidth=1.3)
                end = bar.high
            _write_end(axes, row, end, limit, bar.shown)
        _finish_bars(axes, limit, axis_format)

    return _draw(ROW_IN * len(bars) + MARGIN_IN, paint)


def draw_parts(
    names: Sequence[str], parts: Sequence[Part], show: Callable[[float], str], axis_format: str, *, has_sums: bool
) -> str | None:
    """Return horizontal bars made of parts, each part with its figure where there is room for it; None without bars."""
    totals = [sum(values) for values in zip(*(part.values for part in parts), strict=True)]
    if not totals:
        return None
    limit = _limit_bars(totals, [])

    def paint(axes: Axes) -> None:
        begins = [0.0] * len(names)
        for part in parts:
            bars = axes.barh(names, part.values, left=begins, height=0.75, color=part.colour, label=part.name)
            begins = [begin + value for begin, value in zip(begins, part.values, strict=True)]
            labels = [
                show(value) if value > LEAST_LABELLED * limit and end <= limit else ""
                for value, end in zip(part.values, begins, strict=True)
            ]
            axes.bar_label(bars, labels, label_type="center", fontsize=7, color="white")
        for row, total in enumerate(totals if has_sums else ()):
            _write_end(axes, row, total, limit, show(total))
        axes.figure.legend(loc="outside upper left", ncols=LEGEND_COLUMNS, fontsize=8)
        _finish_bars(axes, limit, axis_format)

    legend_in = LEGEND_IN * ceil(len(parts) / LEGEND_COLUMNS)
    return _draw(ROW_IN * len(names) + MARGIN_IN + legend_in, paint)


def draw_lines(lines: Sequence[Line], frame: Frame) -> str | None:
    """Return lines with their bands, each named at its right end; None without figures."""
    known = [value for line in lines for value in line.y if value is not None and (value > 0 or not frame.log_y)]
    if not known:
        return None
    height_in = max(LINES_IN, NAME_IN * len(lines) + MARGIN_IN)

    def paint(axes: Axes) -> None:
        for line in lines:
            _paint_line(axes, line)
        axes.set(xscale="log" if frame.log_x else "linear", yscale="log" if frame.log_y else "linear")
        axes.set(xlabel=frame.x_title, ylim=frame.y_limits or _limit_lines(known, frame.log_y))
        for axis, axis_format in ((axes.xaxis, PLAIN), (axes.yaxis, frame.format)):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(axis_format)
        for mark in frame.marks:
            _mark(axes, *mark)
        _name_lines(axes, lines, NAME_IN / (height_in - MARGIN_IN))

    return _draw(height_in, paint)


def spread_labels(wanted: Sequence[float], gap: float) -> list[float]:
    """Return positions near the `wanted` ones that are `gap` apart, within 0 to 1 as far as they fit."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    places = [0.0] * len(wanted)
    last = -gap
    for at in order:
        last = places[at] = max(wanted[at], last + gap)
    last = 1.0 + gap
    for at in reversed(order):
        last = places[at] = min(places[at], last - gap)
    return places


def _draw(height_in: float, paint: Callable[[Axes], None]) -> str:
    file = StringIO()
    with as_file(files(__package__) / STYLE) as style, matplotlib.rc_context(fname=style):
        chart = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        paint(chart.add_subplot())
        chart.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    text = file.getvalue()
    return text[text.index("<svg") :]


def _paint_line(axes: Axes, line: Line) -> None:
    look, order = line.look, 2.0 if line.look.is_quiet else 2.5
    axes.plot(
        line.x,
        _floats(line.y),
        color=look.colour,
        linestyle="--" if look.is_dashed else "-",
        linewidth=0.9 if look.is_quiet else 1.5,
        marker="o" if len(line.x) <= 12 else "",
        markersize=3,
        zorder=order,
    )
    if line.low and not look.is_quiet:
        axes.fill_between(line.x, _floats(line.low), _floats(line.high), color=look.colour, alpha=0.13, linewidth=0)


def _name_lines(axes: Axes, lines: Sequence[Line], gap: float) -> None:
    to_axes = axes.transScale + axes.transLimits
    ends = [(line, value) for line in lines for value in [_last(line.y)] if value is not None]
    wanted = [min(max(float(to_axes.transform((line.x[-1], value))[1]), 0.0), 1.0) for line, value in ends]
    for (line, _), place in zip(ends, spread_labels(wanted, gap), strict=True):
        colour = SOFT if line.look.is_quiet else line.look.colour
        axes.text(1.02, place, line.name, transform=axes.transAxes, color=colour, va="center", fontsize=8)


def _finish_bars(axes: Axes, limit: float, axis_format: str) -> None:
    axes.set_xlim(0.0, limit)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.xaxis.set_major_formatter(axis_format)


def _write_end(axes: Axes, row: int, end: float, limit: float, shown: str) -> None:
    text = shown if end <= limit else f"» {shown}"
    axes.annotate(text, (min(end, limit), row), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _mark(axes: Axes, at: float, name: str) -> None:
    low, high = axes.get_xlim()
    if not low <= at <= high:
        return
    axes.axvline(at, color=SOFT, linewidth=0.9, linestyle=":")
    axes.annotate(name, (at, 1.0), (3, 0), ("data", "axes fraction"), "offset points", va="bottom", color=SOFT)


def _limit_bars(values: Sequence[float], ends: Sequence[float]) -> float:
    """Return where bars are cut: at the greatest value, unless it dwarfs the median."""
    usual = sorted(values)[(len(values) - 1) // 2]
    greatest = max([*values, *ends])
    return (greatest if usual <= 0 else min(greatest, 4 * usual)) or 1.0


def _limit_lines(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        # One policy that fails would press all others into a corner.
        return low / 1.15, min(high * 1.15, 10 * sorted(values)[len(values) // 2])
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high + 0.05 * (high - low)) if high > low else (0.0, 1.0)


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _floats(values: Sequence[float | None]) -> list[float]:
    return [nan if value is None else value for value in values]
