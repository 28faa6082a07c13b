"""Reads request traces in the format of the Azure LLM inference trace of 2023."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from perllm_lab.workload.arrivals import Arrival

COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
GZIP_MAGIC = b"\x1f\x8b"

_Row = tuple[datetime, int, int]


class TraceError(ValueError):
    """A trace that cannot be used; the message names the line and says what is right."""


def read_trace(path: Path, *, limit: int | None = None) -> list[Arrival]:
    """Reads the first `limit` requests of a CSV file, plain or gzip, ordered by time, the first at 0 s.

    Raises:
        TraceError: the file cannot be read or a line is not a request.
    """
    try:
        with path.open("rb") as file:
            opener = gzip.open if file.read(2) == GZIP_MAGIC else open
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            return parse_trace(lines, limit=limit)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read as CSV, plain or gzip: {error}") from error


def parse_trace(lines: Iterable[str], *, limit: int | None = None) -> list[Arrival]:
    """Reads requests from CSV lines, see `read_trace`."""
    rows = sorted(islice(_rows(lines), limit), key=lambda row: row[0])
    if not rows:
        raise TraceError(f"no requests; expected the header {','.join(COLUMNS)} and one request a line")
    first = rows[0][0]
    return [Arrival((when - first).total_seconds(), prompt, output) for when, prompt, output in rows]


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    reader = csv.reader(lines)
    header = [name.strip().lstrip("\ufeff") for name in next(reader, [])]
    if header != COLUMNS:
        raise TraceError(f"line 1: expected the header {','.join(COLUMNS)}, found {','.join(header) or 'nothing'}")
    for row in reader:
        if row:
            yield _row(row, reader.line_num)


def _row(row: list[str], line: int) -> _Row:
    if len(row) != len(COLUMNS):
        raise TraceError(f"line {line}: expected {len(COLUMNS)} fields, found {len(row)}")
    try:
        when = datetime.fromisoformat(row[0].strip())
    except ValueError:
        raise TraceError(f"line {line}: TIMESTAMP must look like 2023-11-16 18:15:46.6805900, not {row[0]!r}") from None
    if when.tzinfo is not None:
        # Clocks are set back in the middle of a night: only their offsets distinguish its hours.
        when = when.astimezone(UTC).replace(tzinfo=None)
    return when, _tokens(row[1], COLUMNS[1], line), _tokens(row[2], COLUMNS[2], line)


def _tokens(text: str, column: str, line: int) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise TraceError(f"line {line}: {column} must be a whole number of at least 1, not {text!r}")
    return int(text)
