"""What a chaos run found, in a form that a file keeps."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import orjson
from rich.table import Table

from e2e.chaos.plan import FaultKind


@dataclass(frozen=True, slots=True)
class ChunkFindings:
    """The outcome of one part of a run, on a lab of its own.

    Attributes:
        chunk: its number, from 0.
        faults: how many were carried out, by kind.
        skipped: how many found nothing to hit.
        phases: how many tasks ended in which phase; `gone` are those that were deleted.
        repeated: tasks whose container was started more than once.
        successes: containers that ran to their end without an error.
        learned: outcomes in the learned state.
        took_s: seconds that the part took.
        memory_mib: resident memory of the operator at the end.
        problems: one line per defect.
        wasted: requests that were answered to their end, and their answers were not accepted.
        freed_s: longest time for which a request occupied its slot after its task was not wanted any more.
    """

    chunk: int
    faults: Mapping[str, int]
    skipped: int
    phases: Mapping[str, int]
    repeated: int
    successes: int
    learned: int
    took_s: float
    memory_mib: float
    problems: Sequence[str]
    wasted: int = 0
    freed_s: float = 0.0

    def to_line(self) -> bytes:
        """Return a line of JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Return what `to_line` has written."""
        return cls(**orjson.loads(line))


def abandon(chunk: int, problem: str) -> ChunkFindings:
    """Return the findings of a part that could not be completed."""
    return ChunkFindings(chunk, {}, 0, {}, 0, 0, 0, 0.0, 0.0, (problem,))


@dataclass(frozen=True, slots=True)
class ChaosFindings:
    """The outcome of a run: that of its parts."""

    chunks: Sequence[ChunkFindings]

    def render(self) -> Table:
        """Return a table of the faults by kind, with a summary."""
        table = Table("fault", "count", title="Chaos", title_justify="left")
        faults = self._sum("faults")
        for kind in (kind.value for kind in FaultKind if faults[kind.value]):
            table.add_row(kind, str(faults[kind]))
        phases, chunks = self._sum("phases"), self.chunks
        table.caption = (
            f"{faults.total()} faults, {sum(one.skipped for one in chunks)} more had nothing to hit; "
            f"{phases.total()} tasks: {dict(phases)}; {sum(one.repeated for one in chunks)} started again; "
            f"{sum(one.wasted for one in chunks)} answers made again; "
            f"{sum(one.learned for one in chunks)} of {sum(one.successes for one in chunks)} successes learned; "
            f"slots freed within {max((one.freed_s for one in chunks), default=0.0):.2f} s; "
            f"operator's memory at most {max((one.memory_mib for one in chunks), default=0.0):.0f} MiB at the end; "
            f"{len(self.list_problems())} problems"
        )
        return table

    def list_problems(self) -> list[str]:
        """Return one line per defect."""
        return [f"part {one.chunk}: {problem}" for one in self.chunks for problem in one.problems]

    def _sum(self, field: str) -> Counter[str]:
        return sum((Counter(getattr(one, field)) for one in self.chunks), Counter())
