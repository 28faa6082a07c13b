"""Server-sent events, as far as streamed completions use them."""

from collections.abc import AsyncIterator


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of every event of a stream, however it is cut into chunks.

    Comments and other fields are skipped. An event that the end of the stream cuts short is handed on, because servers
    leave out the empty line after the last one.
    """
    data: list[bytes] = []
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.rstrip(b"\r"):
                data.extend(_read_data(line))
            elif data:
                yield b"\n".join(data)
                data = []
    data.extend(_read_data(rest))
    if data:
        yield b"\n".join(data)


def _read_data(line: bytes) -> tuple[bytes, ...]:
    field, colon, value = line.rstrip(b"\r").partition(b":")
    return (value.removeprefix(b" "),) if field == b"data" and colon else ()
