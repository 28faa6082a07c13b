"""Reads request traces in the formats of the Azure LLM inference traces, of BurstGPT and of Mooncake."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from perllm.api.base import MAX_TOKENS
from perllm.text import cut
from perllm_lab.workload.arrivals import Arrival

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "TIMESTAMP": ("timestamp",),
    "ContextTokens": ("contexttokens", "request tokens", "input_length"),
    "GeneratedTokens": ("generatedtokens", "response tokens", "output_length"),
}
"""The columns, and what published traces call them, in lower case: Azure's, and those of BurstGPT and Mooncake."""

GZIP_MAGIC = b"\x1f\x8b"
MAX_QUOTED = 100
"""Characters of a file that are repeated in a message."""

_EXPECTED = (
    f"the header {','.join(COLUMNS)}, in any order and with other columns in between, or JSON objects with these"
)
_EPOCH = datetime(1970, 1, 1)
_PER_SECOND = 1_000_000

_Row = tuple[int, int, int]
"""A time in microseconds, tokens of the prompt, and tokens of the answer."""

_Records = Iterator[tuple[int, list[str]]]
"""The number of a line, and its time, prompt and answer as texts."""


class TraceError(ValueError):
    """A trace that cannot be used; the message names the line and says what is right."""


def read_trace(path: Path, *, limit: int | None = None) -> list[Arrival]:
    """Reads the first `limit` requests of a file, ordered by time, the first at 0 s: CSV or JSON Lines, plain or gzip.

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
        raise TraceError(f"{path}: cannot be read as CSV or JSON Lines, plain or gzip: {error}") from error


def parse_trace(lines: Iterable[str], *, limit: int | None = None) -> list[Arrival]:
    """Reads requests from lines, see `read_trace`."""
    rows = sorted(islice(_rows(lines), limit), key=itemgetter(0))
    if not rows:
        raise TraceError(f"no requests; expected {_EXPECTED}, and one request a line")
    first = rows[0][0]
    return [Arrival((at - first) / _PER_SECOND, prompt, output) for at, prompt, output in rows]


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    rest = iter(lines)
    first = next(rest, "").lstrip("\ufeff")
    read = _read_objects if first.lstrip().startswith("{") else _read_table
    names, records = read(chain([first], rest))
    read_time: Callable[[str], int] | None = None
    for line, (when, prompt, output) in records:
        # All times of a file are of one kind: a number between dates would be a year away from them.
        read_time = read_time or (_read_number if _is_number(when) else _read_date)
        yield _time(when, read_time, line), _tokens(prompt, names[1], line), _tokens(output, names[2], line)


def _read_table(lines: Iterable[str]) -> tuple[list[str], _Records]:
    """Returns what time, prompt and answer are called in CSV, and these fields of each line."""
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    columns = _find_columns(header)

    def read() -> _Records:
        for row in reader:
            if row and len(row) != len(header):
                raise TraceError(f"line {reader.line_num}: expected {len(header)} fields, found {len(row)}")
            if row:
                yield reader.line_num, [row[column] for column in columns]

    return [header[column] for column in columns], read()


def _read_objects(lines: Iterable[str]) -> tuple[list[str], _Records]:
    """Returns what time, prompt and answer are called in JSON Lines, and these fields of each line."""
    objects = ((number, _parse_object(text, number)) for number, text in enumerate(lines, start=1) if text.strip())
    number, first = next(objects)
    keys = list(first)
    names = [keys[column] for column in _find_columns([key.strip() for key in keys])]

    def read() -> _Records:
        for line, one in chain([(number, first)], objects):
            missing = [name for name in names if not isinstance(one.get(name), str | int | float)]
            if missing:
                raise TraceError(f"line {line}: expected a number or a text as {', '.join(missing)}")
            yield line, [str(one[name]) for name in names]

    return names, read()


def _parse_object(text: str, line: int) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TraceError(f"line {line}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise TraceError(f"line {line}: expected a JSON object, as in the first line")
    return value


def _find_columns(header: list[str]) -> list[int]:
    names = [name.lower() for name in header]
    found = [next((names.index(name) for name in known if name in names), -1) for known in COLUMNS.values()]
    if -1 in found:
        raise TraceError(f"line 1: expected {_EXPECTED}; found {cut(','.join(header), MAX_QUOTED) or 'nothing'}")
    return found


def _time(text: str, read: Callable[[str], int], line: int) -> int:
    try:
        return read(text.strip())
    except (ValueError, OverflowError):
        forms = "look like 2023-11-16 18:15:46.6805900 in all lines, or be a number in all"
        raise TraceError(f"line {line}: TIMESTAMP must {forms}, not {cut(text, MAX_QUOTED)!r}") from None


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _read_number(text: str) -> int:
    return round(float(text) * _PER_SECOND)


def _read_date(text: str) -> int:
    when = datetime.fromisoformat(text)
    if when.tzinfo is not None:
        # Clocks are set back in the middle of a night: only their offsets distinguish its hours.
        when = when.astimezone(UTC).replace(tzinfo=None)
    return (when - _EPOCH) // timedelta(microseconds=1)


def _tokens(text: str, column: str, line: int) -> int:
    digits = text.strip()
    # The length first: Python refuses to read a number of thousands of digits.
    if not digits.isdecimal() or len(digits) > len(str(MAX_TOKENS)) or not 1 <= int(digits) <= MAX_TOKENS:
        rule = f"must be a whole number of 1 to {MAX_TOKENS}; leave out requests without prompt or answer"
        raise TraceError(f"line {line}: {column} {rule}; it is {cut(text, MAX_QUOTED)!r}")
    return int(digits)
