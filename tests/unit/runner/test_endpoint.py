import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from perllm.api.report import TokenSource
from perllm.runner.answer import Answer
from perllm.runner.endpoint import Endpoint, Patience, Sampling
from perllm.runner.errors import EndpointError, ExitCode
from unit.runner.model_server import (
    FakeModelServer,
    Handler,
    chunk,
    encode,
    hang,
    hang_up,
    refuse,
    stream,
    usage_chunk,
)

PROMPT = ({"role": "user", "content": "Hi"},)


class FakeClock:
    """Virtual time: sleeping is what makes it pass."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.pauses.append(seconds)


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer.serve() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def ask(
    server_url: str, session: aiohttp.ClientSession, clock: FakeClock, *, wait_s: float = 20.0, timeout_s: float = 30.0
) -> Answer:
    answer = Answer()
    sampling = Sampling("m", max_tokens=50, temperature=0.0)
    endpoint = Endpoint(session, server_url, sampling, Patience(wait_s, timeout_s), now=clock.now, sleep=clock.sleep)
    await endpoint.ask(PROMPT, answer, lambda text: None)
    return answer


async def test_answer_is_streamed_and_measured(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    answer = Answer()
    pieces: list[str] = []

    def note(text: str) -> None:
        pieces.append(text)
        clock.now_s += 1.0

    endpoint = Endpoint(session, server.url, Sampling("m"), Patience(0.0, 30.0), now=clock.now)
    await endpoint.ask(PROMPT, answer, note)

    assert (answer.text, pieces) == ("Hello there", ["Hello", " there"])
    assert (answer.sent_s, answer.first_s, answer.ended_s) == (100.0, 100.0, 102.0)
    assert (answer.told_prompt_tokens, answer.output_tokens, answer.token_source) == (11, 7, TokenSource.USAGE)
    assert (answer.finish_reason, answer.problem) == ("stop", "")


async def test_request_asks_for_a_stream_with_usage(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    await ask(server.url, session, clock)

    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 50,
            "temperature": 0.0,
        }
    ]


async def test_without_usage_chunks_are_counted_and_reasoning_counts(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    server.script = [stream(encode(thought, chunk("a"), chunk("b", "length"), "[DONE]"))]

    answer = await ask(server.url, session, clock)

    assert (answer.text, answer.output_tokens, answer.token_source) == ("ab", 3, TokenSource.CHUNKS)
    assert answer.told_prompt_tokens is None


async def test_older_server_is_asked_without_usage(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    server.script = [refuse(422, {"detail": "stream_options: extra fields not permitted"})]

    endpoint = Endpoint(session, server.url, Sampling("m"), Patience(0.0, 30.0), now=clock.now)
    answers = [Answer(), Answer()]
    for answer in answers:
        await endpoint.ask(PROMPT, answer, lambda text: None)

    assert [answer.text for answer in answers] == ["Hello there"] * 2
    assert ["stream_options" in request for request in server.requests] == [True, False, False]


async def test_numbers_that_cannot_be_are_not_believed(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    usage = {"prompt_tokens": True, "completion_tokens": 10**12}
    server.script = [stream(encode(chunk("x", "stop"), usage_chunk(usage)))]

    answer = await ask(server.url, session, clock)

    assert (answer.told_prompt_tokens, answer.output_tokens, answer.token_source) == (None, 1, TokenSource.CHUNKS)


async def test_explanation_of_a_refusal_is_read_to_its_end(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async def refuse_in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        for piece in (b'{"error": {"mess', b'age": "too long"}}'):
            await response.write(piece)
            await asyncio.sleep(0.01)
        return response

    server.script = [refuse_in_pieces]

    with pytest.raises(EndpointError, match=r"answered 400: too long$"):
        await ask(server.url, session, clock)


@pytest.mark.parametrize(
    "end",
    [
        [{"choices": None, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, "[DONE]"],
        [{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}],
    ],
    ids=["choices are null", "no choices and no [DONE]"],
)
async def test_dialects_of_the_last_chunk(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock, end: list[object]
) -> None:
    server.script = [stream(encode(chunk("x"), chunk(None, "stop"), *end))]

    answer = await ask(server.url, session, clock)

    assert (answer.text, answer.output_tokens) == ("x", 2)


async def test_server_that_loads_is_asked_again_with_growing_pauses(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    server.script = [refuse(503), refuse(502), refuse(429, **{"Retry-After": "3"}), stream(b"", then=hang_up)]

    answer = await ask(server.url, session, clock)

    assert answer.text == "Hello there"
    assert clock.pauses == [0.25, 0.5, 3.0, 1.0]
    assert answer.sent_s == 100.0 + sum(clock.pauses)


async def test_server_that_is_not_there_yet_is_waited_for_only_so_long(
    session: aiohttp.ClientSession, clock: FakeClock, unused_tcp_port: int
) -> None:
    with pytest.raises(EndpointError, match=r"was not ready within 20 s \(--wait\)") as caught:
        await ask(f"http://127.0.0.1:{unused_tcp_port}/v1", session, clock)

    assert caught.value.code is ExitCode.UNREACHABLE
    assert sum(clock.pauses) <= 20.0


BROKEN = [
    (refuse(404, {"error": {"message": "no such model"}}), ExitCode.REFUSED, "answered 404: no such model"),
    (refuse(400, {"error": "prompt too long"}), ExitCode.REFUSED, "prompt too long"),
    (refuse(307, Location="http://elsewhere/"), ExitCode.REFUSED, "answered 307"),
    (refuse(500), ExitCode.UNREACHABLE, "answered 500: status 500"),
    (refuse(200), ExitCode.REFUSED, "application/json, not with a stream of events: status 200"),
    (stream(encode(chunk("a")), b"data: {oops\n\n"), ExitCode.REFUSED, "no part of a chat completion"),
    (stream(encode(["list"])), ExitCode.REFUSED, "no part of a chat completion"),
    (stream(encode(chunk(["parts"]))), ExitCode.REFUSED, "no part of a chat completion"),  # type: ignore[arg-type]
    (stream(encode(chunk("a"))), ExitCode.UNREACHABLE, "ended the stream before the answer was complete"),
    (stream(encode(chunk("a")), then=hang_up), ExitCode.UNREACHABLE, "broke off"),
    (stream(encode({"error": {"code": 400, "message": "bad"}})), ExitCode.REFUSED, "broke off the answer: bad"),
    (stream(encode({"error": "out of memory"})), ExitCode.UNREACHABLE, "out of memory"),
]


@pytest.mark.parametrize(("handler", "code", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
async def test_what_is_no_answer_is_told_apart(
    server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    handler: Handler,
    code: ExitCode,
    message: str,
) -> None:
    server.script = [handler]

    with pytest.raises(EndpointError, match=message) as caught:
        await ask(server.url, session, clock)

    assert caught.value.code is code
    assert len(server.requests) == 1


async def test_answer_that_takes_too_long_is_given_up_and_what_came_is_kept(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    server.script = [stream(encode(chunk("so far")), then=hang)]
    answer = Answer()
    endpoint = Endpoint(session, server.url, Sampling("m"), Patience(0.0, 0.2), now=clock.now)

    with pytest.raises(EndpointError, match=r"longer than 0.2 s \(--timeout\)") as caught:
        await endpoint.ask(PROMPT, answer, lambda text: None)

    assert caught.value.code is ExitCode.OUT_OF_TIME
    assert (answer.text, answer.problem) == ("so far", "is not complete")
