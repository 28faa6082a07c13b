"""Charts as SVG: bars with intervals, stacked bars, lines with bands. Pure functions of their data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perllm_lab.report.svg import LETTER_PX, Axis, drawing, hint, number, path, spread_labels, tag, text, tick

WIDTH = 560.0
ROW = 22.0
TOP = 8.0
HEIGHT = 300.0

Format = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; None is not known. `shown` is its figure as a person reads it."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    shown: str
    colour: str


@dataclass(frozen=True, slots=True)
class Stack:
    """One bar of several parts, each (name, value, colour)."""

    name: str
    parts: Sequence[tuple[str, float, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; y, low and high have one entry per x, None where it is not known."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dashed: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds lines: titles of the axes, limits of y where given, marks at values of x."""

    x_title: str
    y_title: str
    format: Format = tick
    log_x: bool = False
    log_y: bool = False
    y_limits: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = ()


def draw_bars(label: str, bars: Sequence[Bar], show: Format = tick, mark: tuple[float, str] | None = None) -> str:
    """Return horizontal bars with intervals; a bar far beyond the others is cut and says so."""
    values = [bar.value for bar in bars if bar.value is not None]
    if not values:
        return tag("p", "no figures", class_="none")
    left, right = _names_width([bar.name for bar in bars]), 130.0
    top_value = _cut(values, [bar.high for bar in bars if bar.high is not None] + ([mark[0]] if mark else []))
    axis = Axis(0.0, top_value or 1.0, left, WIDTH - right)
    top = TOP if mark is None else TOP + 16
    height = top + ROW * len(bars) + 18
    rows = [_bar_row(bar, top + ROW * at, axis) for at, bar in enumerate(bars)]
    marks = [] if mark is None else [_mark(axis.at(mark[0]), TOP, height - 18, mark[1])]
    return drawing(WIDTH, height, label, *_x_axis(axis, top, height - 18, show), *rows, *marks)


def draw_stacks(label: str, stacks: Sequence[Stack], show: Format = number, *, sums: bool = True) -> str:
    """Return horizontal bars of parts, with the sum at their end."""
    totals = [sum(value for _, value, _ in stack.parts) for stack in stacks]
    left, right = _names_width([stack.name for stack in stacks]), 70.0
    axis = Axis(0.0, _cut(totals, []) or 1.0, left, WIDTH - right)
    height = TOP + ROW * len(stacks) + 18
    rows = [_stack_row(stack, TOP + ROW * at, axis, show, sums) for at, stack in enumerate(stacks)]
    return drawing(WIDTH, height, label, *_x_axis(axis, TOP, height - 18, show), *rows)


def draw_lines(label: str, lines: Sequence[Line], frame: Frame) -> str:
    """Return lines with their bands, each named at its right end."""
    known = [value for line in lines for value in line.y if value is not None and (value > 0 or not frame.log_y)]
    xs = [value for line in lines for value in line.x]
    if not known:
        return tag("p", "no figures", class_="none")
    height = max(HEIGHT, 13.0 * len(lines) + 60)
    left, right, bottom = 56.0, _names_width([line.name for line in lines], least=40), height - 38
    x_axis = Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, left, WIDTH - right, frame.log_x)
    low, high = frame.y_limits or _limits(known, frame.log_y)
    y_axis = Axis(low, high, bottom, TOP, frame.log_y)
    drawn = sorted(lines, key=lambda line: not line.quiet)
    return drawing(
        WIDTH,
        height,
        label,
        *_x_axis(x_axis, TOP, bottom, tick),
        *_y_axis(y_axis, left, WIDTH - right, frame.format),
        text((left + WIDTH - right) / 2, height - 4, frame.x_title, class_="axis", text_anchor="middle"),
        *[_mark(x_axis.at(at), TOP, bottom, name) for at, name in frame.marks if min(xs) <= at <= max(xs)],
        *[_band(line, x_axis, y_axis) for line in drawn if line.low],
        *[_line(line, x_axis, y_axis) for line in drawn],
        *_line_names(lines, x_axis, y_axis),
    )


def _bar_row(bar: Bar, y: float, axis: Axis) -> str:
    middle, end = y + ROW / 2, axis.at(bar.value or 0.0)
    is_cut = bar.value is not None and bar.value > axis.high
    pieces = [
        hint(f"{bar.name}: {bar.shown}"),
        text(axis.start_px - 6, middle + 4, bar.name, text_anchor="end"),
        tag(
            "rect",
            x=axis.start_px,
            y=y + 4,
            width=end - axis.start_px,
            height=ROW - 8,
            class_="bar",
            style=f"fill:{bar.colour}",
        ),
    ]
    if bar.low is not None and bar.high is not None and not is_cut:
        end = axis.at(bar.high)
        pieces.append(path([(axis.at(bar.low), middle), (end, middle)], class_="whisker"))
    pieces.append(text(end + 6, middle + 4, f"{'» ' if is_cut else ''}{bar.shown}", class_="value"))
    return tag("g", *pieces)


def _stack_row(stack: Stack, y: float, axis: Axis, show: Format, has_sum: bool) -> str:
    pieces, so_far = [text(axis.start_px - 6, y + ROW / 2 + 4, stack.name, text_anchor="end")], 0.0
    for name, value, colour in stack.parts:
        begin, end = axis.at(so_far), axis.at(so_far + value)
        so_far += value
        if end > begin:
            told = hint(f"{stack.name}, {name}: {show(value)}")
            pieces.append(
                tag("rect", told, x=begin, y=y + 3, width=end - begin, height=ROW - 6, style=f"fill:{colour}")
            )
    if has_sum:
        cut = "» " if so_far > axis.high * 1.0001 else ""
        pieces.append(text(axis.at(so_far) + 6, y + ROW / 2 + 4, cut + show(so_far), class_="value"))
    return tag("g", *pieces)


def _line(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    runs = [_points(run, x_axis, y_axis) for run in _runs(line.x, line.y)]
    classes = "line quiet" if line.quiet else "line"
    dashes = "6 3" if line.dashed else "none"
    drawn = [path(run, style=f"stroke:{line.colour};stroke-dasharray:{dashes}") for run in runs]
    dots = [
        tag("circle", cx=x, cy=y, r=2.5, style=f"fill:{line.colour}")
        for run in runs
        for x, y in run
        if len(line.x) <= 12
    ]
    return tag("g", hint(line.name), *drawn, *dots, class_=classes)


def _band(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    ends = zip(line.x, line.low, line.high, strict=True)
    known = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
    if len(known) < 2 or line.quiet:
        return ""
    there = _points([(x, high) for x, _, high in known], x_axis, y_axis)
    back = _points([(x, low) for x, low, _ in reversed(known)], x_axis, y_axis)
    return path([*there, *back], style=f"fill:{line.colour}", class_="band")


def _line_names(lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> list[str]:
    ends = [
        (line, next(value for value in reversed(line.y) if value is not None)) for line in lines if _any_known(line)
    ]
    wanted = [y_axis.at(value) for _, value in ends]
    places = spread_labels(wanted, 13.0, y_axis.end_px + 4, y_axis.start_px)
    return [
        text(x_axis.end_px + 8, y + 4, line.name, style=f"fill:{'var(--soft)' if line.quiet else line.colour}")
        for (line, _), y in zip(ends, places, strict=True)
    ]


def _any_known(line: Line) -> bool:
    return any(value is not None for value in line.y)


def _runs(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Return the stretches of a line without holes."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _points(run: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> list[tuple[float, float]]:
    return [(x_axis.at(x), y_axis.at(y)) for x, y in run]


def _limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        # One policy that fails would press all others into a corner.
        return low / 1.15, min(high * 1.15, 10 * sorted(values)[len(values) // 2])
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high + 0.05 * (high - low)) if high > low else (0.0, 1.0)


def _cut(values: Sequence[float], ends: Sequence[float]) -> float:
    """Return where bars end: at the greatest, unless it dwarfs what is usual."""
    usual = sorted(values)[(len(values) - 1) // 2]
    greatest = max([*values, *ends])
    return greatest if usual <= 0 else min(greatest, 4 * usual)


def _names_width(names: Sequence[str], least: float = 60.0) -> float:
    return max(least, max(len(name) for name in names) * LETTER_PX + 14)


def _mark(x: float, top: float, bottom: float, name: str) -> str:
    return tag("g", path([(x, top), (x, bottom)], class_="mark"), text(x + 4, top + 8, name, class_="axis"))


def _x_axis(axis: Axis, top: float, bottom: float, show: Format) -> list[str]:
    lines = [path([(axis.at(value), top), (axis.at(value), bottom)], class_="grid") for value in axis.ticks()]
    names = [
        text(axis.at(value), bottom + 14, show(value), class_="axis", text_anchor="middle") for value in axis.ticks()
    ]
    return lines + names


def _y_axis(axis: Axis, left: float, right: float, show: Format) -> list[str]:
    lines = [path([(left, axis.at(value)), (right, axis.at(value))], class_="grid") for value in axis.ticks()]
    names = [
        text(left - 6, axis.at(value) + 4, show(value), class_="axis", text_anchor="end") for value in axis.ticks()
    ]
    return lines + names
