"""The section `inventory` of a scenario: nodes from a list of machines, and the parser of such lists."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perllm_lab.hardware.fields import Bandwidth, GpuCount, GpuKey, RoundTrip

COLUMNS = ["sn", "cpu_milli", "memory_mib", "gpu", "model"]


class InventoryError(ValueError):
    """An inventory that cannot be used; the message names the line and says what is right."""


class Machines(BaseModel):
    """Identical machines.

    Attributes:
        model: GPU model as the inventory calls it.
        gpus: GPUs of each machine.
        count: Number of machines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    gpus: GpuCount
    count: int = Field(ge=1)


class Mapped(BaseModel):
    """How a GPU model of an inventory is simulated.

    Attributes:
        gpu: Key in the catalogue of GPU types.
        tier: The tier of machines with it.
        uplink_mbps: Bandwidth of a machine's uplink.
        rtt_ms: Round trip to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: GpuKey
    tier: Literal["edge", "cloud"]
    uplink_mbps: Bandwidth
    rtt_ms: RoundTrip


class Inventory(BaseModel):
    """Nodes from a list of machines.

    Attributes:
        file: CSV file with the columns sn, cpu_milli, memory_mib, gpu, model, relative to the scenario's file;
            machines without GPU are left out. It takes the place of `machines`.
        machines: The machines, if no file is given.
        models: How each GPU model is simulated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = None
    machines: tuple[Machines, ...] = ()
    models: dict[str, Mapped]

    @model_validator(mode="after")
    def _known_models(self) -> "Inventory":
        known = ", ".join(sorted(self.models))
        if unknown := sorted({machines.model for machines in self.machines} - set(self.models)):
            raise ValueError(f"models does not define {', '.join(unknown)}; defined: {known}")
        return self


def parse_inventory(lines: Iterable[str]) -> list[Machines]:
    """Counts the machines with GPUs in the lines of a CSV file, by model and number of GPUs.

    Raises:
        InventoryError: a line is not a machine, or none has a GPU.
    """
    reader = csv.reader(lines)
    header = [name.strip().lstrip("\ufeff") for name in next(reader, [])]
    if header != COLUMNS:
        raise InventoryError(f"line 1: expected the header {','.join(COLUMNS)}, found {','.join(header) or 'nothing'}")
    counts = Counter(_machine(row, reader.line_num) for row in reader if row)
    machines = [Machines(model=model, gpus=gpus, count=count) for (model, gpus), count in counts.items() if gpus]
    if not machines:
        raise InventoryError("no machine has a GPU")
    return sorted(machines, key=lambda each: (each.model, each.gpus))


def _machine(row: list[str], line: int) -> tuple[str, int]:
    if len(row) != len(COLUMNS):
        raise InventoryError(f"line {line}: expected {len(COLUMNS)} fields, found {len(row)}")
    gpus, model = row[3].strip(), row[4].strip()
    if not gpus.isdecimal() or len(gpus) > 2 or int(gpus) > 64:
        raise InventoryError(f"line {line}: gpu must be a whole number of at most 64, not {row[3]!r}")
    if int(gpus) and not model:
        raise InventoryError(f"line {line}: a machine with GPUs needs a model")
    return model, int(gpus)
