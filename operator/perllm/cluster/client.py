"""A slim asynchronous client for the hot path: plain dictionaries over aiohttp and orjson.

The official client takes several times as much CPU time per object, to build models that the hot path would only take
apart again. It loads the credentials (credentials.py).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from perllm.body_parts import read_parts
from perllm.cluster.credentials import Credentials
from perllm.cluster.decoding import UndecodableError, decode
from perllm.cluster.sockets import open_socket
from perllm.text import MAX_LINE, clean_line, error_line, hide_credentials

Object = dict[str, Any]

MAX_REASON = 100
MAX_RETRY_AFTER_S = 60.0

WATCH_S = 15
"""How long a watch lasts; the API server ends it then, after a bookmark, so nothing has to be listed again."""

WATCH_SILENCE_S = 18.0
"""A watch that is silent for longer is dead, since the API server would have ended it."""


METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class PatchKind(StrEnum):
    """Content types of a patch."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """A request to the API server failed.

    Attributes:
        status: HTTP status code; 0 if there was no answer.
        reason: machine-readable reason such as "Conflict" or "AlreadyExists".
        message: the server's own message, as one clean line.
        retry_after_s: how long the server asked to wait before a retry.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        self.status = status
        self.reason = clean_line(reason, MAX_REASON)
        self.message = clean_line(message)
        code = f"{status} " if status else ""
        super().__init__(f"{code}{self.reason}: {self.message}")
        self.retry_after_s = retry_after_s

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later.

        That includes missing rights: an API server that has just started denies all requests until it has read the
        roles.
        """
        return self.status in (0, 401, 403, 429) or self.status >= 500

    @property
    def is_conflict(self) -> bool:
        """Whether something changed at the same time, such as what a quota counts, so that a retry may succeed."""
        return self.status == 409 and self.reason == "Conflict"

    @property
    def is_unanswered(self) -> bool:
        """Whether this request got no answer."""
        return False

    @property
    def is_unreachable(self) -> bool:
        """Whether any other request would have got no answer either."""
        return False


class ApiTimeoutError(ApiError):
    """The API server did not answer this request in time. It may answer others: a webhook may be slow for this one."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Timeout", message)

    @property
    def is_unanswered(self) -> bool:
        """Whether this request got no answer."""
        return True


class ApiUnreachableError(ApiError):
    """Nothing answers at the address of the API server, or something that is not an API server."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)

    @property
    def is_unanswered(self) -> bool:
        """Whether this request got no answer."""
        return True

    @property
    def is_unreachable(self) -> bool:
        """Whether any other request would have got no answer either."""
        return True


class Client:
    """Sends requests to one API server. Use it as an asynchronous context manager."""

    def __init__(self, credentials: Credentials, *, max_connections: int = 32, timeout_s: float = 30.0) -> None:
        self._credentials = credentials
        self._max_connections = max_connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=10.0)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=self._max_connections,
            ssl=self._credentials.ssl_context() or True,
            keepalive_timeout=60,
            socket_factory=open_socket,
        )
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, proxy=self._credentials.proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: str) -> Object:
        """Read one object or a list."""
        return await self._request("GET", path, query=query)

    async def list_metadata(self, path: str, **query: str) -> Object:
        """Read the metadata of the objects in a list."""
        return await self._request("GET", path, query=query, accept=METADATA_LIST)

    async def post(self, path: str, body: object, **query: str) -> Object:
        """Create an object."""
        return await self._request("POST", path, query=query, body=body)

    async def put(self, path: str, body: object) -> Object:
        """Replace an object."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: object, *, kind: PatchKind = PatchKind.MERGE, **query: str) -> Object:
        """Change part of an object."""
        return await self._request("PATCH", path, query=query, body=body, content_type=kind)

    async def delete(self, path: str, body: object | None = None) -> Object:
        """Delete an object; `body` may hold DeleteOptions."""
        return await self._request("DELETE", path, body=body)

    async def watch(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        metadata_only: bool = False,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Object]:
        """Yield watch events from `path` until the server ends the stream, after `WATCH_S` at the latest.

        Args:
            path: API path of a collection.
            query: selectors, and the version from which on changes are wanted.
            metadata_only: whether only the metadata of the objects are wanted.
            on_open: called once the server has accepted the watch.

        Raises:
            ApiError: the server denies the watch, or the stream was cut off or silent for `WATCH_SILENCE_S`.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=WATCH_SILENCE_S)
        parameters = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S), **query}
        try:
            async with self._open().get(
                self._credentials.server + path,
                params=parameters,
                headers=self._credentials.headers() | ({"Accept": METADATA} if metadata_only else {}),
                timeout=timeout,
                read_bufsize=2**20,
                server_hostname=self._credentials.server_name,
            ) as response:
                if response.status >= 400:
                    raise _error_from(response, await response.read())
                on_open()
                async for line in split_lines(response.content, WATCH_SILENCE_S):
                    yield _parse(line, f"watch of {path}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(f"the watch of {path} was interrupted", error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> Object:
        headers = self._credentials.headers() | ({"Accept": accept} if accept else {})
        data = None
        if body is not None:
            data = orjson.dumps(body)
            headers["Content-Type"] = content_type
        try:
            async with self._open().request(
                method,
                self._credentials.server + path,
                params=query,
                data=data,
                headers=headers,
                server_hostname=self._credentials.server_name,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(f"{method} {path}: no answer from {self._credentials.server}", error) from error
        if response.status >= 400:
            raise _error_from(response, content)
        return _parse(content, f"{method} {path}")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client was used before it was entered: write 'async with Client(...) as client'")
        return self._session


def _parse(content: bytes, what: str) -> Object:
    try:
        return decode(content) if content else {}
    except UndecodableError as error:
        raise ApiUnreachableError(f"{what}: the answer is not that of an API server: {error}") from error


async def split_lines(stream: aiohttp.StreamReader, silence_s: float | None = None) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length; aiohttp's own reader fails on lines longer than its buffer.

    Raises:
        TimeoutError: nothing came for `silence_s`.
    """
    rest = b""
    async for chunk in read_parts(stream, silence_s):
        *lines, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        for line in lines:
            if line:
                yield line
        await asyncio.sleep(0)


def _no_answer(what: str, error: Exception) -> ApiError:
    words = f"{what}: {hide_credentials(error_line(error))}"  # a proxy may have a password
    # A timeout while connecting means that the server is unreachable; aiohttp has a class of its own for it.
    is_late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
    return ApiTimeoutError(words) if is_late else ApiUnreachableError(words)


def _error_from(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    try:
        status = decode(content)
    except UndecodableError:
        status = {"message": content[:MAX_LINE].decode(errors="replace")}
    reason = str(status.get("reason") or response.reason)
    retry_after = response.headers.get("Retry-After", "")
    retry_after_s = min(float(retry_after), MAX_RETRY_AFTER_S) if re.fullmatch("[0-9]{1,9}", retry_after) else 0.0
    # A server behind the proxy of the API server, such as Prometheus, has words of its own.
    return ApiError(response.status, reason, str(status.get("message") or status.get("error") or ""), retry_after_s)
