"""HTTP that ends: an answer has a size at most, and a request can be broken off from another thread.

A timeout of `requests` counts from one byte to the next, so a server that drips them would hold a poll for ever.
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
    """An answer has more bytes than are taken."""


class BreakableAdapter(HTTPAdapter):
    """Sends requests of one thread; `break_off` ends what is under way from any other.

    Args:
        max_bytes: of an answer, decompressed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sockets: list[socket.socket] = []
        # The poller waits and tries again by itself; retries in here would multiply the timeout.
        super().__init__(max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Let every connection tell of its socket."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _build_pools(self._watch)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """Let every connection to a proxy tell of its socket too."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; its answer is complete when this returns.

        Raises:
            AnswerTooLargeError: the answer has too many bytes.
        """
        try:
            response = super().send(request, *args, **{**kwargs, "stream": True})
            response.raw = io.BytesIO(self._read(response))
        finally:
            self._forget()
            # A connection that is used again would tell of no socket.
            for manager in (self.poolmanager, *self.proxy_manager.values()):
                manager.clear()
        return response

    def break_off(self) -> None:
        """End the request that is under way, whatever it waits for."""
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
        # A second handle: TLS takes the first one over.
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
