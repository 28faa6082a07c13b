"""A model server that speaks the OpenAI protocol over real HTTP, and says what a test wants it to say."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def usage_chunk(usage: dict[str, int] | None = None) -> dict[str, Any]:
    return {"choices": [], "usage": usage or USAGE}


def encode(*events: object) -> bytes:
    return b"".join(
        b"data: " + (b"[DONE]" if one == "[DONE]" else json.dumps(one).encode()) + b"\n\n" for one in events
    )


ANSWER = encode(chunk(""), chunk("Hello"), chunk(" there"), chunk(None, "stop"), usage_chunk(), "[DONE]")


class FakeModelServer:
    """Answers chat completions.

    Attributes:
        requests: bodies of the requests, in order.
        keys: their Authorization headers.
        script: what to do with the next requests; then `ANSWER` is given.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.script: list[Handler] = []
        self.asked = asyncio.Event()
        self._server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return str(self._server.make_url("/v1"))

    @classmethod
    @asynccontextmanager
    async def serve(cls) -> AsyncIterator[Self]:
        server = cls()
        server._server = TestServer(server.build_app())
        await server._server.start_server()
        yield server
        await server._server.close()

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        self.asked.set()
        handler = self.script.pop(0) if self.script else stream(ANSWER)
        return await handler(request)


def stream(*pieces: bytes, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Handler:
    """Send the pieces one by one, then do something else before the end."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then is not None:
            await then(request)
        return response

    return handler


def refuse(status: int, body: object = None, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body or {"error": {"message": f"status {status}"}}, status=status, headers=headers)

    return handler


async def hang(request: web.Request) -> None:
    await asyncio.Event().wait()


async def hang_up(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
