"""A proxy between the operator and the API server that adds to watches what no real API server sends."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from e2e.stage import wait_until
from perllm.cluster.credentials import Credentials
from perllm_lab.kubernetes.ports import LOOPBACK
from strategies.events import Ending, WatchEvent

SILENCE_S = 3.0
WATCHED_S = 10.0
HOP_BY_HOP = frozenset({"connection", "content-length", "transfer-encoding", "host"})


class Watch:
    """A watch that the proxy forwards."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._flow = asyncio.Lock()
        self._rest = b""

    async def forward(self, chunk: bytes) -> None:
        """Forward the complete lines."""
        lines, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        async with self._flow:
            await self._response.write(lines + newline)

    async def add(self, event: WatchEvent) -> None:
        """Add an event, and end the watch if the event says so."""
        async with self._flow:
            if event.ending is Ending.SILENCE:
                await asyncio.sleep(SILENCE_S)
            else:
                await self._response.write(event.line + b"\n")
            if event.ending is not Ending.GO_ON:
                self.break_off()

    def break_off(self) -> None:
        """Abort the connection, as a broken network does."""
        if self._request.transport is not None:
            self._request.transport.abort()


class ApiProxy:
    """Serves on a port of its own, with the rights of the credentials that it is given."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._watches: dict[str, set[Watch]] = defaultdict(set)
        self._session: aiohttp.ClientSession
        self._runner = web.AppRunner(self._build_app(), handler_cancellation=True, shutdown_timeout=1.0)
        self.url = ""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._credentials.ssl_context() or True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self) -> str:
        """Return a kubeconfig for the proxy, which needs no credentials."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "operator", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "current-context": "proxy",
        }
        return yaml.safe_dump(content)

    async def add(self, event: WatchEvent) -> int:
        """Add an event to all watches of its collection, once there are any; return how many there are."""
        watches = self._watches[event.collection]

        async def is_watched() -> bool:
            return bool(watches)

        with suppress(AssertionError):
            await wait_until(is_watched, timeout_s=WATCHED_S)
        count = len(watches)
        await asyncio.gather(*(watch.add(event) for watch in list(watches)), return_exceptions=True)
        return count

    def _build_app(self) -> web.Application:
        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        url = URL(self._credentials.server + request.raw_path, encoded=True)
        body = await request.read() or None
        headers = _forwarded(request.headers)
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            if "watch" in request.query and answer.status == 200:
                return await self._follow(request, answer)
            return web.Response(status=answer.status, headers=_forwarded(answer.headers), body=await answer.read())

    async def _follow(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers=_forwarded(answer.headers))
        await response.prepare(request)
        watch, watches = Watch(request, response), self._watches[request.path.rpartition("/")[2]]
        watches.add(watch)
        try:
            async for chunk in answer.content.iter_any():
                await watch.forward(chunk)
        except (aiohttp.ClientError, ConnectionError):
            watch.break_off()
        finally:
            watches.discard(watch)
        return response


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}
