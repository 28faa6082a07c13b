"""Parses durations and quantities in the notation of Kubernetes."""

import re
from decimal import Decimal

# The generated resource definition contains this pattern as well, so that CEL checks the same rule.
DURATION_PATTERN = "^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms|us|ns))+$"
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9.]+)(h|ms|m|us|ns|s)")
_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,30}(?:[.][0-9]{0,30})?|[.][0-9]{1,30}))([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?"
)
_SUFFIXES = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m"), -3)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def parse_duration_s(text: str) -> float:
    """Return the seconds of a duration such as ``1h2m3.5s`` or ``300ms``.

    Raises:
        ValueError: the text is not an unsigned duration with a unit.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write for example 30s, 1m30s or 500ms")
    parts = _DURATION_PART.findall(text)
    return float(sum((Decimal(number) * _SECONDS[unit] for number, unit in parts), Decimal(0)))


def parse_quantity(value: int | str) -> int:
    """Return a Kubernetes quantity such as ``2Mi``, ``1.5G``, ``1e6`` or 42 as an integer, rounded up.

    Raises:
        ValueError: the value is not a quantity.
    """
    return value if isinstance(value, int) else int(_parse(value).to_integral_value(rounding="ROUND_CEILING"))


def parse_amount(value: int | str) -> float:
    """Return a Kubernetes quantity as it is, fractions such as ``250m`` included.

    Raises:
        ValueError: the value is not a quantity.
    """
    return float(value if isinstance(value, int) else _parse(value))


def _parse(value: str) -> Decimal:
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a quantity: write for example 512Ki, 2Mi or 1500000")
    number, suffix = Decimal(match[1]), match[2] or ""
    scale = _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(10) ** int(suffix[1:])
    return number * scale
