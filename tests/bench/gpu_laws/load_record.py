"""Records of a served load as files: its tasks, the passes of the GPU, and the readings of its meters."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.gpu_laws.engine import GpuPass, ServedTask
from bench.gpu_laws.readings import Reading, Readings

TASKS, PASSES, READINGS = "tasks.csv", "passes.csv", "readings.csv"

Row = TypeVar("Row", bound=ServedTask | GpuPass)


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What was recorded at one load; all times are of one clock.

    Attributes:
        load: As a share of the capacity.
        tasks: In the order of their arrivals.
        passes: In the order of time.
        readings: From before the first arrival until after the last end.
    """

    load: float
    tasks: Sequence[ServedTask]
    passes: Sequence[GpuPass]
    readings: Readings

    @property
    def window_s(self) -> tuple[float, float]:
        """From the first arrival to the last end."""
        return self.tasks[0].arrived_s, max(task.ended_s for task in self.tasks)


def append_rows(file: Path, load: float, rows: Sequence[Row]) -> None:
    """Append the tasks or the passes of a load, of which there are some, to a CSV file."""
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if not out.tell():
            writer.writerow(["load", *(field.name for field in fields(rows[0]))])
        for row in rows:
            writer.writerow([load, *map(_format, astuple(row))])


def read_record(folder: Path, margin_s: float) -> list[LoadRecord]:
    """Return what is in a folder by load, with the readings of a margin before and after each."""
    tasks, passes = _read_rows(folder / TASKS, ServedTask), _read_rows(folder / PASSES, GpuPass)
    readings = _read_readings(folder / READINGS)
    records = []
    for load, rows in tasks.items():
        own = sorted(rows, key=attrgetter("arrived_s"))
        end_s = max(task.ended_s for task in own)
        near = readings.between(own[0].arrived_s - margin_s, end_s + margin_s)
        records.append(LoadRecord(load, own, passes[load], near))
    return records


def _read_rows(file: Path, kind: type[Row]) -> dict[float, list[Row]]:
    parsers = [field.type if callable(field.type) else float for field in fields(kind)]
    found = defaultdict[float, list[Row]](list)
    with file.open(newline="", encoding="utf-8") as lines:
        for load, *texts in list(csv.reader(lines))[1:]:
            values: list[Any] = [parse(text) for parse, text in zip(parsers, texts, strict=True)]
            found[float(load)].append(kind(*values))
    return found


def _format(value: float) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _read_readings(file: Path) -> Readings:
    rows = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
    return Readings.of([Reading(*row) for row in rows.tolist()])
