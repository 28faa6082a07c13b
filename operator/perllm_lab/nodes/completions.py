"""The HTTP side of the model servers: OpenAI's API and the pages of vLLM, at a path of its own for each node."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from aiohttp import web

from perllm_lab.nodes.chat import ChatAnswer, ChatError, read_chat
from perllm_lab.nodes.metrics import CONTENT_TYPE, render_server
from perllm_lab.nodes.model_server import ServerFullError, SimulatedServer
from perllm_lab.nodes.served_request import RequestEnd, ServedRequest

RETRY_AFTER_S = 1
FindServer = Callable[[web.Request], SimulatedServer]


class CompletionRoutes:
    """Answers requests to model servers; a server that is down closes the connection.

    Args:
        find: returns the server that a request is meant for.
    """

    def __init__(self, find: FindServer) -> None:
        self._find = find

    def build(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/nodes/{name}/v1/chat/completions", self._complete),
            web.get("/nodes/{name}/v1/models", self._models),
            web.get("/nodes/{name}/health", self._health),
            web.get("/nodes/{name}/metrics", self._metrics),
        ]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        server = await self._find_up(request)
        spec, request_id = server.machine.spec, request.headers.get("X-Request-Id", "")
        try:
            chat = read_chat(content, spec.model)
            served = ServedRequest(request_id, chat.work.task, streams=chat.streams)
            server.submit(served, chat.work)
        except ChatError as error:
            return web.json_response(error.to_body(), status=error.status)
        except ServerFullError:
            full = ChatError("too many requests wait", 429, "TooManyRequestsError")
            return web.json_response(full.to_body(), status=429, headers={"Retry-After": str(RETRY_AFTER_S)})
        clock = server.machine.clock
        created_s = int(clock.wall(clock.now_s()).timestamp())
        answer = ChatAnswer(chat, name=f"chatcmpl-{request_id or served.key}", model=spec.model, created_s=created_s)
        try:
            return await (_stream if chat.streams else _send)(request, served, answer)
        except ConnectionError:
            await _hang_up(request)
        finally:
            # aiohttp cancels this handler as soon as the client closes the connection.
            server.abort(served)

    async def _models(self, request: web.Request) -> web.Response:
        server = await self._find_up(request)
        model = {"id": server.machine.spec.model, "object": "model", "created": 0, "owned_by": "vllm"}
        return web.json_response({"object": "list", "data": [model]})

    async def _health(self, request: web.Request) -> web.Response:
        await self._find_up(request)
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        server = await self._find_up(request)
        if not server.shows_load:
            raise web.HTTPNotFound
        page = render_server(server.machine.spec, server.machine.sample_engines(), server.first_tokens)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})

    async def _find_up(self, request: web.Request) -> SimulatedServer:
        server = self._find(request)
        if not server.is_up:
            await _hang_up(request)
        return server


async def _stream(request: web.Request, served: ServedRequest, answer: ChatAnswer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    while True:
        await served.wait()
        if served.end is not None:
            break
        await response.write(answer.part(served.tokens))
    await _check_answered(request, served)
    await response.write_eof(answer.end())
    return response


async def _send(request: web.Request, served: ServedRequest, answer: ChatAnswer) -> web.StreamResponse:
    while served.end is None:
        await served.wait()
    await _check_answered(request, served)
    return web.json_response(answer.whole())


async def _check_answered(request: web.Request, served: ServedRequest) -> None:
    if served.end is not RequestEnd.SUCCEEDED:
        await _hang_up(request)


async def _hang_up(request: web.Request) -> NoReturn:
    """Close the connection without an answer, as the kernel does for a process that has died, and end the handler."""
    if request.transport is not None:
        request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError("aiohttp cancels the handler of a closed connection")
