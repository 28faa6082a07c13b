import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestServer

from perllm.cluster import client as client_module
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError, Client, PatchKind
from perllm.cluster.credentials import Credentials
from perllm.text import MAX_LINE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server with one handler, and return a client of it."""
    opened = []

    async def start(handler: Handler, timeout_s: float = 30.0) -> Client:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        credentials = Credentials(str(server.make_url("")).rstrip("/"), None, None, None, lambda: "secret")
        client = Client(credentials, timeout_s=timeout_s)
        await client.__aenter__()
        opened.append((client, server))
        return client

    yield start
    for client, server in opened:
        await client.__aexit__(None, None, None)
        await server.close()


async def test_sends_identity_query_and_body(serve: Serve) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "method": request.method,
                "path": request.path_qs,
                "token": request.headers.get("Authorization"),
                "type": request.headers.get("Content-Type"),
                "body": (await request.read()).decode(),
            }
        )

    client = await serve(echo)
    get = await client.get("/api/v1/pods", labelSelector="a=b")
    assert (get["path"], get["token"], get["body"]) == ("/api/v1/pods?labelSelector=a%3Db", "Bearer secret", "")
    patch = await client.patch("/x", {"a": None}, kind=PatchKind.STRATEGIC)
    assert (patch["method"], patch["type"], patch["body"]) == ("PATCH", PatchKind.STRATEGIC, '{"a":null}')
    assert [(await call("/x", {}))["method"] for call in (client.post, client.put, client.delete)] == [
        "POST",
        "PUT",
        "DELETE",
    ]


@pytest.mark.parametrize(
    ("status", "body", "reason", "message", "is_transient"),
    [
        (
            409,
            b'{"reason": "AlreadyExists", "message": "pods \\"x\\" exists"}',
            "AlreadyExists",
            'pods "x" exists',
            False,
        ),
        (429, b'{"reason": "TooManyRequests"}', "TooManyRequests", "", True),
        (403, b'{"reason": "Forbidden", "message": "roles not read yet"}', "Forbidden", "roles not read yet", True),
        (503, b"<html>proxy says no</html>", "Service Unavailable", "<html>proxy says no</html>", True),
        (404, b"[]", "Not Found", "[]", False),
    ],
)
async def test_a_refusal_tells_status_reason_and_message(
    serve: Serve, status: int, body: bytes, reason: str, message: str, is_transient: bool
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Retry-After": "7"})

    client = await serve(refuse)
    with pytest.raises(ApiError) as caught:
        await client.get("/x")
    error = caught.value
    assert (error.status, error.reason, error.message, error.retry_after_s) == (status, reason, message, 7.0)
    assert error.is_transient is is_transient
    with pytest.raises(ApiError) as caught:
        _ = [event async for event in client.watch("/x", {})]
    assert caught.value.status == status


async def test_no_answer_is_an_error_of_its_own(serve: Serve) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    client = await serve(hang_up)
    with pytest.raises(ApiUnreachableError, match="GET /x: no answer from http://127"):
        await client.get("/x")


async def test_a_watch_yields_events_however_they_are_cut_up(serve: Serve) -> None:
    events = [{"type": "ADDED", "object": {"note": "x" * size}} for size in (1, 300_000, 5)]

    async def stream(request: web.Request) -> web.StreamResponse:
        assert request.query["allowWatchBookmarks"] == "true"
        assert request.query["resourceVersion"] == "5"
        assert request.query["timeoutSeconds"] == "15"
        response = web.StreamResponse()
        await response.prepare(request)
        content = b"".join(orjson.dumps(event) + b"\n" for event in events)
        for start in range(0, len(content), 70_000):
            await response.write(content[start : start + 70_000])
        return response

    client = await serve(stream)
    assert [event async for event in client.watch("/x", {"resourceVersion": "5"})] == events


async def test_a_watch_that_breaks_off_is_an_error(serve: Serve) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED"}\n{"type":')
        assert request.transport is not None
        request.transport.close()
        return response

    watch = (await serve(break_off)).watch("/x", {})
    assert await anext(watch) == {"type": "ADDED"}
    with pytest.raises(ApiUnreachableError, match="the watch of /x was interrupted"):
        await anext(watch)


async def test_a_watch_that_falls_silent_is_broken_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_SILENCE_S", 0.2)
    opened: list[str] = []

    async def fall_silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED"}\n')
        await asyncio.sleep(1)
        return response

    watch = (await serve(fall_silent)).watch("/x", {}, on_open=lambda: opened.append("/x"))
    assert await anext(watch) == {"type": "ADDED"}
    assert opened == ["/x"]
    with pytest.raises(ApiTimeoutError):
        await anext(watch)


async def test_a_watch_that_was_garbled_on_its_way_is_broken_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_SILENCE_S", 0.2)
    came = asyncio.Event()

    async def garble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED"}\n')
        await came.wait()
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 504 Gateway Timeout\r\n\r\n")
        return response

    watch = (await serve(garble)).watch("/x", {})
    assert await anext(watch) == {"type": "ADDED"}
    came.set()
    with pytest.raises(ApiTimeoutError):
        await asyncio.wait_for(anext(watch), 2)


async def test_a_proxy_is_asked_for_what_the_server_has() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.json_response({"asked": str(request.url)})

    async with RawTestServer(answer) as proxy:
        credentials = Credentials("http://kube.test", None, None, None, lambda: None, proxy=str(proxy.make_url("/")))
        async with Client(credentials) as client:
            assert await client.get("/api/v1/pods") == {"asked": "http://kube.test/api/v1/pods"}


async def test_the_password_of_a_proxy_is_in_no_message() -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=407)

    async with RawTestServer(refuse) as proxy:
        url = str(proxy.make_url("/").with_user("user").with_password("secret"))
        async with Client(Credentials("https://kube.test", None, None, None, lambda: None, proxy=url)) as client:
            with pytest.raises(ApiUnreachableError, match="407") as caught:
                await client.get("/x")
    assert "secret" not in str(caught.value)


async def test_the_certificate_of_the_server_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def connect(_: object, *__: object, server_hostname: str, **___: object) -> None:
        names.append(server_hostname)
        raise OSError

    monkeypatch.setattr(aiohttp.ClientSession, "request", connect)
    monkeypatch.setattr(aiohttp.ClientSession, "get", connect)
    credentials = Credentials("https://10.0.0.1", None, None, None, lambda: None, server_name="kube.test")
    async with Client(credentials) as client:
        with pytest.raises(ApiUnreachableError):
            await client.get("/x")
        with pytest.raises(ApiUnreachableError):
            await anext(client.watch("/x", {}))

    assert names == ["kube.test", "kube.test"]


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client(Credentials("http://x", None, None, None, lambda: None)).get("/x")


async def test_an_answer_that_takes_too_long_is_that_of_one_request_only(serve: Serve) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    client = await serve(hang, timeout_s=0.1)
    with pytest.raises(ApiTimeoutError) as caught:
        await client.post("/x", {})
    assert caught.value.is_transient
    assert not caught.value.is_unreachable


async def test_words_of_a_server_behind_the_api_server_are_kept(serve: Serve) -> None:
    async def time_out(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "errorType": "timeout", "error": "query timed out"}, status=503)

    with pytest.raises(ApiError, match="query timed out"):
        await (await serve(time_out)).get("/proxy")


async def test_a_refusal_of_any_length_is_one_clean_line(serve: Serve) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"reason": "x" * 9000, "message": "\x1b[2Jline\n" * 9000}, status=422)

    client = await serve(refuse)
    with pytest.raises(ApiError) as caught:
        await client.get("/x")
    assert len(caught.value.message) <= MAX_LINE
    assert len(caught.value.reason) <= MAX_LINE
    assert caught.value.message.startswith("line line")


@pytest.mark.parametrize("retry_after", ["-1", "1e9", "²", "99999999999999", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_an_odd_time_to_wait_is_bounded(serve: Serve, retry_after: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": retry_after})

    client = await serve(refuse)
    with pytest.raises(ApiError) as caught:
        await client.get("/x")
    assert 0.0 <= caught.value.retry_after_s <= 60.0


async def test_an_object_that_is_nested_too_deeply_spoils_neither_list_nor_watch(serve: Serve) -> None:
    deep = b'{"items":[{"a":1},' + b"[" * 2000 + b"]" * 2000 + b"]}\n"

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=deep)

    client = await serve(answer)
    assert (await client.get("/x"))["items"][0] == {"a": 1}
    assert (await anext(client.watch("/x", {})))["items"][0] == {"a": 1}
