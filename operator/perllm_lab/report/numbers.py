"""Numbers as a person reads them."""

from collections.abc import Mapping
from math import floor, log10
from typing import Any

Json = Mapping[str, Any]


def number(value: float | None) -> str:
    """Return a value with three significant digits."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, 2 - floor(log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def exact(value: float) -> str:
    """Return a value in as few digits as distinguish it from all others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return "-" if value is None else f"{value * 100:.1f} %".replace(".0 %", " %")


def with_interval(spread: Json, unit: Json | None = None) -> str:
    """Return mean ± half of the interval."""
    mean, high = spread["mean"], spread["high"]
    if mean is None:
        return "-"
    is_percent = unit is not None and is_share(unit)
    scale, suffix = (100.0, " %") if is_percent else (1.0, "")
    digits = 1 if is_percent else _decimals(mean)
    half = "" if high is None else f" ±{(high - mean) * scale:,.{digits}f}"
    return f"{mean * scale:,.{digits}f}{half}{suffix}"


def with_worst(spread: Json, unit: Json) -> str:
    """Return mean ± half of the interval, and the value of the worst seed of several."""
    worst = find_worst(spread, unit)
    if worst is None or spread["high"] is None:
        return with_interval(spread, unit)
    shown = f"{worst * 100:,.1f}" if is_share(unit) else f"{worst:,.{_decimals(worst)}f}"
    return f"{with_interval(spread, unit)} ({shown})"


def find_worst(spread: Json, unit: Json) -> float | None:
    """Return the value of the worst seed; None without a mean, or where neither more nor less is better."""
    known = [value for value in spread["seeds"] if value is not None]
    if spread["mean"] is None or unit["better"] is None:
        return None
    return float(min(known) if unit["better"] == "more" else max(known))


def with_range(ratio: Json) -> str:
    """Return a ratio and its interval."""
    if ratio["mean"] is None:
        return "-"
    low, high = ratio["low"], ratio["high"]
    ends = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
    return f"{number(ratio['mean'])}{ends}"


def is_share(unit: Json) -> bool:
    """Return whether a figure is a share, which is shown in percent."""
    return bool(unit["unit"] == "share")


def title_of(unit: Json) -> str:
    """Return the title of a figure with its unit."""
    return str(unit["title"]) if is_share(unit) else f"{unit['title']}, {unit['unit']}"


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3
