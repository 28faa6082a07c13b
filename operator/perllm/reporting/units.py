"""Figures for people: energy in a unit that fits, shares in percent."""

JOULES_PER_KWH = 3.6e6
_UNITS = ((1e12, "TJ"), (1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ"), (1.0, "J"))


def energy(energy_j: float) -> str:
    """Return joules, with the prefix that fits."""
    scale, unit = next(((scale, unit) for scale, unit in _UNITS if abs(energy_j) >= scale), (1.0, "J"))
    return f"{_write(energy_j / scale, 3)} {unit}"


def count(number: float) -> str:
    """Return a number of things."""
    return f"{number:,.0f}"


def kilowatt_hours(energy_j: float) -> str:
    """Return kilowatt-hours."""
    return f"{_write(energy_j / JOULES_PER_KWH, 4)} kWh"


def _write(number: float, digits: int) -> str:
    """Return a number with so many digits, or more if its integral part has more: never with an exponent."""
    return f"{number:,.0f}" if abs(number) >= 10 ** (digits - 1) else f"{number:,.{digits}g}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent; a dash if there is nothing to share."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
