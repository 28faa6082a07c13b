"""Parses server-sent events, as far as streamed completions use them, including the dialects of various servers."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from perllm.completions.errors import PromptRejectedError

MAX_EVENT_BYTES = 16 * 2**20
"""No part of an answer is that long; the limit keeps a server that never ends an event from filling the memory."""

DONE = b"[DONE]"
KEEP_ALIVES = frozenset({b"ping", b"heartbeat", b"keepalive", b"keep-alive"})
"""Names of events that only keep a connection open, with any data."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its data, and whether the server marks it as an error."""

    data: bytes
    is_error: bool = False


@dataclass(slots=True)
class _EventLines:
    """The lines of an event so far."""

    name: bytes = b""
    data: list[bytes] = field(default_factory=list)
    size: int = 0
    is_error: bool = False

    def add(self, name: bytes, value: bytes) -> None:
        """Take a line.

        Raises:
            PromptRejectedError: the event is longer than any answer.
        """
        if name == b"event":
            self.name = value
        self.is_error = self.is_error or name == b"error" or self.name == b"error"
        if name in (b"data", b"error"):
            self.data.append(value)
            self.size += len(value) + 1
            _check_size(self.size)

    def ends_before(self, name: bytes, value: bytes) -> bool:
        """Whether a line begins another event: some servers omit the empty line between two objects."""
        is_object = bool(self.data) and self.data[0].startswith(b"{") and self.data[-1].rstrip().endswith(b"}")
        return is_object and name == b"data" and value.startswith((b"{", DONE))

    def to_event(self) -> ServerEvent | None:
        """Return the event; None if it has no data, or only keeps the connection open."""
        data = b"\n".join(self.data)
        if self.is_error and self.data:
            return ServerEvent(data, is_error=True)
        return ServerEvent(data) if data.strip() and self.name not in KEEP_ALIVES else None


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events of a stream, regardless of how it is split into chunks.

    Comments and other fields are skipped. An event at the end of the stream is yielded even if it is not terminated,
    because servers omit the empty line after the last one, unless it is cut off. So is an object on a line of its own,
    and one in a field ``error``.

    Raises:
        PromptRejectedError: an event is longer than any answer.
    """
    lines = _EventLines()
    async for line in _read_lines(chunks):
        name, value = _read_field(line)
        is_end = not line
        if is_end or lines.ends_before(name, value):
            event, lines = lines.to_event(), _EventLines()
            if event is not None:
                yield event
        if not is_end:
            lines.add(name, value)
    event = lines.to_event()
    if event is not None and (event.is_error or _is_complete(event.data)):
        yield event


async def _read_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines; a carriage return ends a line immediately, and a newline that follows belongs to it."""
    rest = bytearray()
    is_first, is_newline_due = True, False
    async for chunk in chunks:
        if not chunk:
            continue
        piece = chunk.removeprefix(b"\n") if is_newline_due else chunk
        is_newline_due = chunk.endswith(b"\r")
        end, *begun = _LINE_END.split(piece)
        rest += end
        _check_size(len(rest))
        for following in begun:
            line, rest = bytes(rest), bytearray(following)
            yield line.removeprefix(_BYTE_ORDER_MARK) if is_first else line
            is_first = False
    if rest:
        yield bytes(rest).removeprefix(_BYTE_ORDER_MARK) if is_first else bytes(rest)


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    if line.startswith(b"{"):
        return b"data", line
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def _is_complete(data: bytes) -> bool:
    """Whether the end of the stream does not cut this off."""
    if data.strip() == DONE:
        return True
    try:
        json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _check_size(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise PromptRejectedError(f"the server sent an event of more than {MAX_EVENT_BYTES} bytes")
