"""A server on the loopback interface that answers as a test wants it to, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(answer: Answer, seen: list[str] | None = None) -> AsyncIterator[str]:
    """Answer every request, and add it to those seen; yield the address."""

    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await reader.readuntil(b"\r\n\r\n")
                if seen is not None:
                    seen.append(request.decode())
                await answer(writer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def say(body: str | bytes, status: str = "200 OK") -> Answer:
    """Return an answer in one piece."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        content = body.encode() if isinstance(body, str) else body
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)

    return answer


def drip(beginning: bytes) -> Answer:
    """Return an answer that goes on for ever, a byte every few milliseconds."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


async def hang(writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""
    await asyncio.sleep(3600)
