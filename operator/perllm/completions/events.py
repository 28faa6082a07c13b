"""Parses server-sent events, as far as streamed completions use them, including the dialects of various servers."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from perllm.completions.errors import PromptRejectedError

MAX_EVENT_BYTES = 16 * 2**20
"""No part of an answer is that long; the limit keeps a server that never ends a line from filling the memory."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its data, and whether the server marks it as an error."""

    data: bytes
    is_error: bool = False


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events of a stream, regardless of how it is split into chunks.

    Comments and other fields are skipped. An event at the end of the stream is yielded even if it is not terminated,
    because servers omit the empty line after the last one. So is an object on a line of its own, and one in a field
    ``error``.

    Raises:
        PromptRejectedError: an event is longer than any answer.
    """
    data: list[bytes] = []
    is_error = False
    async for line in _read_lines(chunks):
        if not line and data:
            yield ServerEvent(b"\n".join(data), is_error)
        if not line:
            data, is_error = [], False
            continue
        field, value = _read_field(line)
        is_error = is_error or field == b"error" or (field, value) == (b"event", b"error")
        if field in (b"data", b"error"):
            data.append(value)
            _check_length(data)
    if data:
        yield ServerEvent(b"\n".join(data), is_error)


async def _read_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines; a carriage return ends a line immediately, and a newline that follows belongs to it."""
    rest = b""
    is_first, is_newline_due = True, False
    async for chunk in chunks:
        if not chunk:
            continue
        if is_newline_due and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            is_newline_due = False
            if not chunk:
                continue
        *lines, rest = _LINE_END.split(rest + chunk)
        is_newline_due = chunk.endswith(b"\r")
        _check_length((rest,))
        for line in lines:
            yield line.removeprefix(_BYTE_ORDER_MARK) if is_first else line
            is_first = False
    if rest:
        yield rest.removeprefix(_BYTE_ORDER_MARK) if is_first else rest


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    if line.startswith(b"{"):
        return b"data", line
    field, _, value = line.partition(b":")
    return field, value.removeprefix(b" ")


def _check_length(parts: list[bytes] | tuple[bytes, ...]) -> None:
    if sum(map(len, parts)) > MAX_EVENT_BYTES:
        raise PromptRejectedError(f"the server sent an event of more than {MAX_EVENT_BYTES} bytes")
