"""Figures and tables as words for a terminal; what is unknown is a question mark."""

from collections.abc import Collection, Iterator, Sequence

from perllm.api.task_status import TaskStatus

UNKNOWN = "?"
KILO = 10_000.0
"""From here on joules are shown in thousands."""


def format_seconds(value: float | None) -> str:
    """Return seconds with as many digits as people need."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def format_joules(value: float | None) -> str:
    """Return joules, large figures in kJ."""
    if value is None:
        return UNKNOWN
    return f"{value / 1000:.1f} kJ" if abs(value) >= KILO else f"{value:.0f} J"


def format_share(value: float | None) -> str:
    """Return a share in per cent."""
    return UNKNOWN if value is None else f"{value:.1%}" if 0.0005 <= value <= 0.9995 else f"{value:.0%}"


def describe_energy(status: TaskStatus) -> str:
    """Return the energy of a task that has ended, with its quality."""
    observed = status.observed
    if observed is None or observed.energy_quality is None:
        return UNKNOWN if observed is None else "not known yet"
    if observed.energy_joules is None:
        return "not measured"
    return f"{format_joules(observed.energy_joules)} ({observed.energy_quality})"


def tabulate(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield rows with aligned columns, two spaces apart; those in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
