"""HTTP with bounds: an answer has a maximum size, and another thread can abort a request.

The timeout of `requests` applies between two bytes, so a server that sends them slowly could block a poll forever.
"""

import io
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.retry import Retry

CHUNK = 2**16


class AnswerTooLargeError(Exception):
    """An answer is larger than allowed."""


class BreakableAdapter(HTTPAdapter):
    """Sends the requests of one thread; any other thread may abort the current one with `break_off`.

    Args:
        max_bytes: maximum size of an answer, decompressed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sockets: list[socket.socket] = []
        # The poller retries by itself; retries in here would multiply the timeout.
        super().__init__(max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make every connection register its socket."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _build_pools(self._watch)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """Make every connection to a proxy register its socket as well."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and read its whole answer.

        Raises:
            AnswerTooLargeError: the answer is too large.
        """
        try:
            response = super().send(request, *args, **{**kwargs, "stream": True})
            response.raw = io.BytesIO(self._read(response))
        finally:
            self._forget()
            # A reused connection would not register its socket again.
            for manager in (self.poolmanager, *self.proxy_manager.values()):
                manager.clear()
        return response

    def break_off(self) -> None:
        """Abort the current request at any point."""
        for one in tuple(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _read(self, response: requests.Response) -> bytes:
        body = bytearray()
        for chunk in response.raw.stream(CHUNK, decode_content=True):
            body += chunk
            if len(body) > self._max_bytes:
                response.close()
                raise AnswerTooLargeError(f"more than {self._max_bytes} bytes")
        return bytes(body)

    def _watch(self, connected: socket.socket) -> socket.socket:
        # A duplicate handle, because TLS takes over the first one.
        self._sockets.append(connected.dup())
        return connected

    def _forget(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets.clear()


def _build_pools(watch: Callable[[socket.socket], socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watch(super()._new_conn())

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return watch(super()._new_conn())

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}
