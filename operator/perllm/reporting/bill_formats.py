"""A bill as a table for people, as CSV and as JSON."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

import orjson

from perllm.api.task_status import EnergyQuality
from perllm.reporting.bill import Bill, BillLine
from perllm.reporting.units import JOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class _Column:
    """A column about payers.

    Attributes:
        name: for programs.
        title: for people.
        read: returns the value of a line; None if it is unknown.
        show: returns it for people.
    """

    name: str
    title: str
    read: Callable[[BillLine], float | None]
    show: Callable[[float], str]


def _share(quality: EnergyQuality) -> _Column:
    return _Column(f"{quality.value}_share", quality.value, lambda line: line.share(quality), "{:.0%}".format)


_COUNT = "{:,.0f}".format
_COLUMNS = (
    _Column("tasks", "tasks", lambda line: line.tasks, _COUNT),
    _Column("deadlines_met", "in time", lambda line: line.met, _COUNT),
    _Column("met_share", "share", lambda line: line.met / line.judged if line.judged else None, "{:.1%}".format),
    _Column("prompt_tokens", "tokens in", lambda line: line.prompt_tokens, _COUNT),
    _Column("output_tokens", "tokens out", lambda line: line.output_tokens, _COUNT),
    _Column("joules", "joules", lambda line: line.inference_j, _COUNT),
    _Column("kwh", "kWh", lambda line: line.inference_j / JOULES_PER_KWH, "{:.4f}".format),
    _Column("transmission_joules", "transmission", lambda line: line.transmission_j, _COUNT),
    *map(_share, EnergyQuality),
)


def _list_rest(bill: Bill) -> dict[str, float]:
    """Return the joules of no payer, and the measured total; by name."""
    return {
        "foreign": bill.foreign_j,
        "idle": bill.idle_j,
        "unattributed": bill.unattributed_j,
        "measured": bill.measured_j,
    }


def format_json(bill: Bill) -> str:
    """Return the bill as a JSON object; what is unknown is null."""
    document = {
        "start": bill.period.start_s,
        "end": bill.period.end_s,
        "by": bill.by,
        "payers": [
            {"payer": line.payer, **{column.name: column.read(line) for column in _COLUMNS}} for line in bill.lines
        ],
        "rest": {
            name: {"joules": energy_j, "kwh": energy_j / JOULES_PER_KWH} for name, energy_j in _list_rest(bill).items()
        },
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def format_csv(bill: Bill) -> str:
    """Return the bill as CSV: one row for each payer, then the energy of no payer and the measured total."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "name", *(column.name for column in _COLUMNS)])
    for line in bill.lines:
        writer.writerow([bill.by, line.payer, *(column.read(line) for column in _COLUMNS)])
    for name, energy_j in _list_rest(bill).items():
        values = {"joules": energy_j, "kwh": energy_j / JOULES_PER_KWH}
        writer.writerow(["rest", name, *(values.get(column.name) for column in _COLUMNS)])
    return text.getvalue().rstrip("\n")


def format_table(bill: Bill) -> str:
    """Return the bill as a table for people."""
    rows = [[bill.by, *(column.title for column in _COLUMNS)]]
    rows += [[line.payer, *(_show(column, column.read(line)) for column in _COLUMNS)] for line in bill.lines]
    for name, energy_j in _list_rest(bill).items():
        values = {"joules": energy_j, "kwh": energy_j / JOULES_PER_KWH}
        cells = [_show(column, values[column.name]) if column.name in values else "" for column in _COLUMNS]
        rows.append([name.upper(), *cells])
    return "\n".join(_align(rows))


def _show(column: _Column, value: float | None) -> str:
    return "-" if value is None else column.show(value)


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield f"{first:<{widths[0]}}  {'  '.join(cells)}".rstrip()
