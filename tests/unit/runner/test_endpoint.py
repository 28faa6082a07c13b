import asyncio
from collections.abc import AsyncIterator
from random import Random

import aiohttp
import pytest
from aiohttp import web

from perllm.api.report import TokenSource
from perllm.runner.answer import Answer
from perllm.runner.endpoint import AnswerPatience, Endpoint, Sampling, read_retry_after_s
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.prompts import Prompt
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

PROMPT = Prompt(messages=({"role": "user", "content": "Hi"},))
UNIX_S = 1_767_225_600.0  # Thu, 01 Jan 2026 00:00:00 GMT


class LongestPauses(Random):
    """Chance that never makes a pause shorter."""

    def random(self) -> float:
        return 1.0


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


def endpoint_of(
    server_url: str,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    *,
    sampling: Sampling | None = None,
    patience: AnswerPatience | None = None,
) -> Endpoint:
    return Endpoint(
        session,
        server_url,
        sampling or Sampling("m"),
        patience or AnswerPatience(0.0, 30.0),
        now=clock.now,
        unix_now=lambda: UNIX_S,
        rng=LongestPauses(),
        sleep=clock.sleep,
    )


async def ask(
    server_url: str, session: aiohttp.ClientSession, clock: FakeClock, *, wait_s: float = 20.0, timeout_s: float = 30.0
) -> Answer:
    answer = Answer()
    sampling = Sampling("m", max_tokens=50, temperature=0.0)
    patience = AnswerPatience(wait_s, timeout_s)
    endpoint = endpoint_of(server_url, session, clock, sampling=sampling, patience=patience)
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

    endpoint = endpoint_of(server.url, session, clock)
    await endpoint.ask(PROMPT, answer, note)

    assert (answer.text, pieces) == ("Hello there", ["Hello", " there"])
    assert (answer.sent_s, answer.first_s, answer.ended_s) == (100.0, 100.0, 102.0)
    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (11, 7, TokenSource.USAGE)
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
    assert answer.reported_prompt_tokens is None


async def test_older_server_is_asked_without_usage(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    server.script = [refuse(422, {"detail": "stream_options: extra fields not permitted"})]

    endpoint = endpoint_of(server.url, session, clock)
    answers = [Answer(), Answer()]
    for answer in answers:
        await endpoint.ask(PROMPT, answer, lambda text: None)

    assert [answer.text for answer in answers] == ["Hello there"] * 2
    assert ["stream_options" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens"), [(True, 10**12), (0, 0), (-1, -1), (7.0, 2.0), (float("nan"), None)]
)
async def test_numbers_that_cannot_be_are_not_believed(
    server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    prompt_tokens: object,
    output_tokens: object,
) -> None:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens}
    server.script = [stream(encode(chunk("x"), chunk("y", "stop"), usage_chunk(usage), "[DONE]"))]

    answer = await ask(server.url, session, clock)

    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (None, 2, TokenSource.CHUNKS)


async def test_usage_that_was_told_before_the_text_says_nothing_of_it(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    early = chunk("", usage={"prompt_tokens": 7, "completion_tokens": 1})
    server.script = [stream(encode(early, chunk("a"), chunk("b", "stop"), "[DONE]"))]

    answer = await ask(server.url, session, clock)

    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (7, 2, TokenSource.CHUNKS)


async def test_a_prompt_may_have_a_length_and_a_temperature_of_its_own(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    endpoint = endpoint_of(server.url, session, clock, sampling=Sampling("m", max_tokens=50, temperature=1.0))
    await endpoint.ask(PROMPT.model_copy(update={"max_tokens": 5, "temperature": 0.0}), Answer(), lambda text: None)

    assert (server.requests[0]["max_tokens"], server.requests[0]["temperature"]) == (5, 0.0)


ODD = {
    "a character cut between two pieces": ([b'"Hi \\ud83d"', b'"\\ude00!"'], "Hi 😀!"),
    "half a character": ([b'"Hi \\ud83d"', b'"!"', b'"\\ud83d"'], "Hi \ufffd!\ufffd"),
    "bytes that are no UTF-8": ([b'"Hi \xf0\x9f"'], "Hi \ufffd"),
    "parts of which some are thoughts": (
        [b'[{"type": "thinking", "thinking": []}]', b'[{"type": "text", "text": "Blue"}, "."]'],
        "Blue.",
    ),
}


@pytest.mark.parametrize(("contents", "text"), ODD.values(), ids=ODD.keys())
async def test_odd_text_is_taken(
    server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    contents: list[bytes],
    text: str,
) -> None:
    parts = [b'data: {"choices": [{"delta": {"content": %s}, "logprob": NaN}]}\n\n' % one for one in contents]
    server.script = [stream(*parts, encode("[DONE]"))]
    pieces: list[str] = []
    answer = Answer()

    await endpoint_of(server.url, session, clock).ask(PROMPT, answer, pieces.append)

    assert answer.text == "".join(pieces) == text
    assert answer.chunks == len(contents)


WHOLE = {"choices": [{"message": {"content": "Blue."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(("usage", "tokens"), [({"completion_tokens": 2}, 2), (None, None)])
async def test_an_answer_that_comes_at_once_is_taken(
    server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    usage: dict[str, int] | None,
    tokens: int | None,
) -> None:
    server.script = [refuse(200, {**WHOLE, "usage": usage})]

    answer = await ask(server.url, session, clock)

    assert (answer.text, answer.problem, answer.output_tokens) == ("Blue.", "", tokens)
    assert (answer.finish_reason, answer.first_token_s) == ("stop", None)


async def test_a_stream_of_another_content_type_is_one(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async def answer_as_text(request: web.Request) -> web.StreamResponse:
        return web.Response(body=encode(chunk("a"), chunk("b", "stop"), "[DONE]"), content_type="text/plain")

    server.script = [answer_as_text]

    answer = await ask(server.url, session, clock)

    assert (answer.text, answer.output_tokens) == ("ab", 2)


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
    server.script = [
        refuse(503),
        refuse(408),
        refuse(429, **{"Retry-After": "3"}),
        refuse(529),
        stream(b"", then=hang_up),
    ]

    answer = await ask(server.url, session, clock)

    assert answer.text == "Hello there"
    assert clock.pauses == [0.25, 0.5, 3.0, 1.0, 1.0]
    assert answer.sent_s == 100.0 + sum(clock.pauses)


async def test_server_that_is_not_there_yet_is_waited_for_only_so_long(
    session: aiohttp.ClientSession, clock: FakeClock, unused_tcp_port: int
) -> None:
    with pytest.raises(EndpointError, match=r"was not ready within 20 s \(--wait\)") as caught:
        await ask(f"http://127.0.0.1:{unused_tcp_port}/v1", session, clock)

    assert caught.value.code is ExitCode.UNREACHABLE
    assert sum(clock.pauses) <= 20.0


@pytest.mark.parametrize(
    ("after", "date", "seconds"),
    [
        ("3", None, 3.0),
        ("1.5", None, 1.5),
        ("Thu, 01 Jan 2026 00:00:02 GMT", None, 2.0),
        ("Thu, 01 Jan 2026 00:02:02 GMT", "Thu, 01 Jan 2026 00:02:00 GMT", 2.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", None, 0.0),
        ("soon", None, 0.0),
        ("inf", None, 0.0),
        ("", None, 0.0),
    ],
)
def test_a_server_says_after_or_at_what_time_to_ask_again(after: str, date: str | None, seconds: float) -> None:
    headers = {"Retry-After": after, **({"Date": date} if date else {})}
    assert read_retry_after_s(headers, UNIX_S) == seconds


async def test_a_server_that_wants_more_patience_than_there_is_is_given_up_at_once(
    server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    server.script = [refuse(429, **{"Retry-After": "300"})]

    with pytest.raises(EndpointError, match=r"not ready within 20 s \(--wait\) and asked for a retry in 300 s"):
        await ask(server.url, session, clock)

    assert clock.pauses == []


BROKEN = [
    (refuse(404, {"error": {"message": "no such model"}}), ExitCode.REFUSED, "answered 404: no such model"),
    (refuse(400, {"error": "prompt too long"}), ExitCode.REFUSED, "prompt too long"),
    (refuse(307, Location="http://elsewhere/"), ExitCode.REFUSED, "answered 307"),
    (refuse(500), ExitCode.UNREACHABLE, "answered 500: status 500"),
    (refuse(200), ExitCode.UNREACHABLE, "reported an error: status 200"),
    (refuse(200, {"choices": []}), ExitCode.REFUSED, "gave an empty answer"),
    (refuse(200, ["list"]), ExitCode.REFUSED, "answered with application/json, not with a completion: .*list"),
    (stream(encode(chunk("a")), b"data: {oops\n\n"), ExitCode.REFUSED, "not part of a chat completion"),
    (stream(encode(["list"])), ExitCode.REFUSED, "not part of a chat completion"),
    (stream(encode(chunk([5]))), ExitCode.REFUSED, "not part of a chat completion"),  # type: ignore[arg-type]
    (stream(b"data: " + b"[" * 5000 + b"\n\n"), ExitCode.REFUSED, "not part of a chat completion"),
    (stream(encode(chunk("a"))), ExitCode.UNREACHABLE, "ended the stream before the answer was complete"),
    (stream(encode(chunk("a")), then=hang_up), ExitCode.UNREACHABLE, "aborted the answer"),
    (stream(encode({"error": {"code": 400, "message": "bad"}})), ExitCode.REFUSED, "reported an error: bad"),
    (
        stream(encode({"error": {"type": "invalid_request_error", "message": "worse"}})),
        ExitCode.REFUSED,
        "error: worse",
    ),
    (stream(encode({"error": "out of memory"})), ExitCode.UNREACHABLE, "error: out of memory"),
    (stream(encode({"error": {}}, "[DONE]")), ExitCode.UNREACHABLE, "error: {}"),
    (stream(encode({"error": {"odd": [1]}}, "[DONE]")), ExitCode.UNREACHABLE, "error: {.odd.: .1.}"),
    (
        stream(encode({"object": "error", "message": "flat", "code": 500}, "[DONE]")),
        ExitCode.UNREACHABLE,
        "error: flat",
    ),
    (stream(encode({"type": "error", "message": "typed"}, "[DONE]")), ExitCode.UNREACHABLE, "error: typed"),
    (stream(encode({"detail": "of a framework"}, "[DONE]")), ExitCode.UNREACHABLE, "error: of a framework"),
    (stream(encode({"choices": [{"error": {"message": "inside"}}]})), ExitCode.UNREACHABLE, "error: inside"),
    (stream(b'event: error\ndata: {"message": "named"}\n\n'), ExitCode.UNREACHABLE, "error: named"),
    (stream(b"event: error\ndata: words\n\n"), ExitCode.UNREACHABLE, "error: words"),
    (stream(b'error: {"code": 500, "message": "field"}\n\n'), ExitCode.UNREACHABLE, "error: field"),
    (stream(b'{"error": {"message": "bare"}}\n'), ExitCode.UNREACHABLE, "error: bare"),
    (stream(encode(chunk("half"), chunk(None, "abort"), "[DONE]")), ExitCode.UNREACHABLE, "finish reason abort"),
    (stream(encode(chunk("half"), chunk(None, "error"), "[DONE]")), ExitCode.UNREACHABLE, "finish reason error"),
    (stream(encode(chunk(None, "content_filter"), "[DONE]")), ExitCode.REFUSED, "finish reason content_filter"),
    (stream(encode(chunk(""), chunk(None, "stop"), "[DONE]")), ExitCode.REFUSED, "empty answer, finish reason stop"),
    (stream(encode("[DONE]")), ExitCode.REFUSED, "gave an empty answer"),
    (stream(b""), ExitCode.UNREACHABLE, "ended the stream before the answer was complete"),
    (stream(encode({"error": {"message": "\x1b[31mred\nline"}})), ExitCode.UNREACHABLE, "error: red line"),
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
    endpoint = endpoint_of(server.url, session, clock, patience=AnswerPatience(0.0, 0.2))

    with pytest.raises(EndpointError, match=r"longer than 0.2 s \(--timeout\)") as caught:
        await endpoint.ask(PROMPT, answer, lambda text: None)

    assert caught.value.code is ExitCode.OUT_OF_TIME
    assert (answer.text, answer.problem) == ("so far", "is not complete")
