"""A TCP connection to the API server that can be cut, stalled, silenced and slowed."""

import asyncio
from types import TracebackType
from typing import Self

from yarl import URL

from perllm_lab.kubernetes.ports import LOOPBACK

CHUNK_BYTES = 65536


class Link:
    """Forwards what it receives on a port of its own; an asynchronous context manager.

    Args:
        server: URL of the server that it leads to.

    Attributes:
        delay_s: how long each chunk of data is held.
    """

    def __init__(self, server: str) -> None:
        self._server = URL(server)
        self._listener: asyncio.Server
        self._connections: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self.delay_s = 0.0

    @property
    def url(self) -> str:
        """URL under which clients reach the server through this link."""
        return str(self._server.with_port(self._listener.sockets[0].getsockname()[1]))

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, LOOPBACK, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        self._end_all()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._is_cut = True
        self._end_all()

    def stall(self) -> None:
        """Hold everything back; no connection ends."""
        self._flows.clear()

    def silence(self) -> None:
        """Never forward anything on the present connections again, without ending them; new ones work."""
        self._flows, silent = asyncio.Event(), self._flows
        self._flows.set()
        silent.clear()

    def restore(self) -> None:
        """Forward everything again at once, including what was held back."""
        self._is_cut, self.delay_s = False, 0.0
        self._flows.set()

    def _end_all(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            if not self._is_cut:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side has ended the connection, or the link was cut
        finally:
            self._connections.discard(connection)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = self._flows
        upstream = await asyncio.open_connection(self._server.host, self._server.port)
        pumps = [
            asyncio.create_task(self._forward(reader, upstream[1], flows)),
            asyncio.create_task(self._forward(upstream[0], writer, flows)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            upstream[1].transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await asyncio.sleep(self.delay_s)
            await flows.wait()
            writer.write(chunk)
            await writer.drain()
