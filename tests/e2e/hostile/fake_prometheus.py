"""A fake Prometheus in front of the real one: forwards queries, unless it has been given an answer."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from perllm_lab.kubernetes.ports import LOOPBACK
from strategies.answers import Answer


class FakePrometheus:
    """Serves on a port of its own.

    Attributes:
        upstream: the real Prometheus.
        answer: to every query; None for the answer of the real one.
    """

    def __init__(self) -> None:
        self.upstream = ""
        self.answer: Answer | None = None
        self.url = ""
        self._session: aiohttp.ClientSession
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.answer is not None:
            return await _send(self.answer, request)
        url = URL(self.upstream + request.raw_path, encoded=True)
        try:
            async with self._session.request(request.method, url) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))


async def _send(answer: Answer, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
    await response.prepare(request)
    size = 1 if answer.drip_s else max(len(answer.body), 1)
    with suppress(ConnectionError):  # the client may close the connection early
        for start in range(0, len(answer.body), size):
            await response.write(answer.body[start : start + size])
            await asyncio.sleep(answer.drip_s)
    return response
