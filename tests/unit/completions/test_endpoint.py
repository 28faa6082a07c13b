import asyncio

import aiohttp
import pytest
from aiohttp import web

from perllm.api.report import TokenSource
from perllm.completions import completion
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest, Endpoint, read_retry_after_s
from perllm.completions.errors import CompletionError, PromptRejectedError, ServerFailedError, UnavailableError
from unit.completions.model_server import (
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

REQUEST = ChatRequest("m", ({"role": "user", "content": "Hi"},), {"max_tokens": 50, "temperature": 0.0})
UNIX_S = 1_767_225_600.0  # Thu, 01 Jan 2026 00:00:00 GMT


class FakeClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def endpoint_of(server_url: str, session: aiohttp.ClientSession, clock: FakeClock, *, key: str = "") -> Endpoint:
    return Endpoint(session, server_url, api_key=key, now=clock.now, unix_now=lambda: UNIX_S)


async def ask(server_url: str, session: aiohttp.ClientSession, clock: FakeClock) -> Answer:
    answer = Answer()
    await endpoint_of(server_url, session, clock).ask(REQUEST, answer)
    return answer


async def test_answer_is_streamed_and_measured(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    answer = Answer()
    pieces: list[str] = []

    def note(text: str) -> None:
        pieces.append(text)
        clock.now_s += 1.0

    endpoint = endpoint_of(model_server.url, session, clock)
    await endpoint.ask(REQUEST, answer, note)

    assert (answer.text, pieces) == ("Hello there", ["Hello", " there"])
    assert (answer.sent_s, answer.first_s, answer.ended_s) == (100.0, 100.0, 102.0)
    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (11, 7, TokenSource.USAGE)
    assert (answer.finish_reason, answer.problem) == ("stop", "")


async def test_request_asks_for_a_stream_with_usage(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    await ask(model_server.url, session, clock)

    assert model_server.requests == [
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
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    model_server.script = [stream(encode(thought, chunk("a"), chunk("b", "length"), "[DONE]"))]

    answer = await ask(model_server.url, session, clock)

    assert (answer.text, answer.output_tokens, answer.token_source) == ("ab", 3, TokenSource.CHUNKS)
    assert answer.reported_prompt_tokens is None


async def test_older_server_is_asked_without_usage(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    model_server.script = [refuse(422, {"detail": "stream_options: extra fields not permitted"})]

    endpoint = endpoint_of(model_server.url, session, clock)
    answers = [Answer(), Answer()]
    for answer in answers:
        await endpoint.ask(REQUEST, answer)

    assert [answer.text for answer in answers] == ["Hello there"] * 2
    assert ["stream_options" in request for request in model_server.requests] == [True, False, False]


async def test_a_server_that_does_not_stream_is_asked_for_a_whole_answer(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    refusal = refuse(501, {"error": {"message": "Streaming is not supported"}})
    model_server.script = [refusal, refusal, refuse(200, WHOLE), refuse(200, WHOLE)]

    endpoint = endpoint_of(model_server.url, session, clock)
    answers = [Answer(), Answer()]
    for answer in answers:
        await endpoint.ask(REQUEST, answer)

    assert [answer.text for answer in answers] == ["Blue."] * 2
    assert [request["stream"] for request in model_server.requests] == [True, True, False, False]


async def test_a_prompt_that_is_rejected_changes_nothing_for_the_next_one(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    model_server.script = [refuse(400, {"error": "too long: 'a stream of words'"})] * 3
    endpoint = endpoint_of(model_server.url, session, clock)
    with pytest.raises(PromptRejectedError, match="too long"):
        await endpoint.ask(REQUEST, Answer())

    await endpoint.ask(REQUEST, Answer())

    assert "stream_options" in model_server.requests[-1]


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens"), [(True, 10**12), (0, 0), (-1, -1), (7.0, 2.0), (float("nan"), None)]
)
async def test_numbers_that_cannot_be_are_not_believed(
    model_server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    prompt_tokens: object,
    output_tokens: object,
) -> None:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens}
    model_server.script = [stream(encode(chunk("x"), chunk("y", "stop"), usage_chunk(usage), "[DONE]"))]

    answer = await ask(model_server.url, session, clock)

    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (None, 2, TokenSource.CHUNKS)


async def test_usage_that_was_told_before_the_text_says_nothing_of_it(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    early = chunk("", usage={"prompt_tokens": 7, "completion_tokens": 1})
    model_server.script = [stream(encode(early, chunk("a"), chunk("b", "stop"), "[DONE]"))]

    answer = await ask(model_server.url, session, clock)

    assert (answer.reported_prompt_tokens, answer.output_tokens, answer.token_source) == (7, 2, TokenSource.CHUNKS)


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
    model_server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    contents: list[bytes],
    text: str,
) -> None:
    parts = [b'data: {"choices": [{"delta": {"content": %s}, "logprob": NaN}]}\n\n' % one for one in contents]
    model_server.script = [stream(*parts, encode(chunk(None, "stop"), "[DONE]"))]
    pieces: list[str] = []
    answer = Answer()

    await endpoint_of(model_server.url, session, clock).ask(REQUEST, answer, pieces.append)

    assert answer.text == "".join(pieces) == text
    assert answer.chunks == len(contents)


WHOLE = {"choices": [{"message": {"content": "Blue."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(("usage", "tokens"), [({"completion_tokens": 2}, 2), (None, None)])
async def test_an_answer_that_comes_at_once_is_taken(
    model_server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    usage: dict[str, int] | None,
    tokens: int | None,
) -> None:
    model_server.script = [refuse(200, {**WHOLE, "usage": usage})]

    answer = await ask(model_server.url, session, clock)

    assert (answer.text, answer.problem, answer.output_tokens) == ("Blue.", "", tokens)
    assert (answer.finish_reason, answer.first_token_s) == ("stop", None)


async def test_a_stream_of_another_content_type_is_one(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async def answer_as_text(request: web.Request) -> web.StreamResponse:
        return web.Response(body=encode(chunk("a"), chunk("b", "stop"), "[DONE]"), content_type="text/plain")

    model_server.script = [answer_as_text]

    answer = await ask(model_server.url, session, clock)

    assert (answer.text, answer.output_tokens) == ("ab", 2)


async def test_explanation_of_a_refusal_is_read_to_its_end(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async def refuse_in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        for piece in (b'{"error": {"mess', b'age": "too long"}}'):
            await response.write(piece)
            await asyncio.sleep(0.01)
        return response

    model_server.script = [refuse_in_pieces]

    with pytest.raises(PromptRejectedError, match=r"answered 400: too long$"):
        await ask(model_server.url, session, clock)


@pytest.mark.parametrize(
    "end",
    [
        [{"choices": None, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, "[DONE]"],
        [{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}],
    ],
    ids=["choices are null", "no choices and no [DONE]"],
)
async def test_dialects_of_the_last_chunk(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock, end: list[object]
) -> None:
    model_server.script = [stream(encode(chunk("x"), chunk(None, "stop"), *end))]

    answer = await ask(model_server.url, session, clock)

    assert (answer.text, answer.output_tokens) == ("x", 2)


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


BROKEN = [
    (refuse(404, {"error": {"message": "no such model"}}), PromptRejectedError, "answered 404: no such model"),
    (refuse(400, {"error": "prompt too long"}), PromptRejectedError, "prompt too long"),
    (refuse(400, [{"error": {"message": "in a list"}}]), PromptRejectedError, "answered 400: in a list$"),
    (refuse(307, Location="http://elsewhere/"), PromptRejectedError, "answered 307"),
    (refuse(500), ServerFailedError, "answered 500: status 500"),
    (refuse(424), ServerFailedError, "answered 424: status 424"),
    (refuse(200), ServerFailedError, "reported an error: status 200"),
    (refuse(200, {"choices": []}), ServerFailedError, "without a finish reason"),
    (refuse(200, ["list"]), PromptRejectedError, "answered with application/json, not with a completion: .*list"),
    (stream(encode(chunk("a")), b"data: {oops\n\n"), PromptRejectedError, "not part of a chat completion"),
    (stream(encode(["list"])), PromptRejectedError, "not part of a chat completion"),
    (stream(encode(chunk([5]))), PromptRejectedError, "not part of a chat completion"),  # type: ignore[arg-type]
    (stream(b"data: " + b"[" * 5000 + b"\n\n"), PromptRejectedError, "not part of a chat completion"),
    (stream(encode(chunk("a"))), ServerFailedError, "ended the stream before the answer was complete"),
    (stream(encode(chunk("a")), then=hang_up), ServerFailedError, "aborted the answer"),
    (stream(encode({"error": {"code": 400, "message": "bad"}})), PromptRejectedError, "reported an error: bad"),
    (
        stream(encode({"error": {"type": "invalid_request_error", "message": "worse"}})),
        PromptRejectedError,
        "error: worse",
    ),
    (stream(encode({"error": "out of memory"})), ServerFailedError, "error: out of memory"),
    (stream(encode({"error": {}}, "[DONE]")), ServerFailedError, "error: {}"),
    (stream(encode({"error": {"odd": [1]}}, "[DONE]")), ServerFailedError, "error: {.odd.: .1.}"),
    (
        stream(encode({"object": "error", "message": "flat", "code": 500}, "[DONE]")),
        ServerFailedError,
        "error: flat",
    ),
    (stream(encode({"type": "error", "message": "typed"}, "[DONE]")), ServerFailedError, "error: typed"),
    (stream(encode({"detail": "of a framework"}, "[DONE]")), ServerFailedError, "error: of a framework"),
    (stream(encode({"choices": [{"error": {"message": "inside"}}]})), ServerFailedError, "error: inside"),
    (stream(b'event: error\ndata: {"message": "named"}\n\n'), ServerFailedError, "error: named"),
    (stream(b"event: error\ndata: words\n\n"), ServerFailedError, "error: words"),
    (stream(b'error: {"code": 500, "message": "field"}\n\n'), ServerFailedError, "error: field"),
    (stream(b'{"error": {"message": "bare"}}\n'), ServerFailedError, "error: bare"),
    (stream(encode(chunk("half"), chunk(None, "abort"), "[DONE]")), ServerFailedError, "finish reason abort"),
    (stream(encode(chunk("half"), chunk(None, "error"), "[DONE]")), ServerFailedError, "finish reason error"),
    (stream(encode(chunk(None, "content_filter"), "[DONE]")), PromptRejectedError, "finish reason content_filter"),
    (stream(encode(chunk(""), chunk(None, "stop"), "[DONE]")), PromptRejectedError, "empty answer, finish reason stop"),
    (stream(encode("[DONE]")), ServerFailedError, "without a finish reason, so it may be incomplete"),
    (stream(encode(chunk("half"), "[DONE]")), ServerFailedError, "ended the answer without a finish reason"),
    (stream(b""), ServerFailedError, "ended the stream before the answer was complete"),
    (stream(encode({"error": {"message": "\x1b[31mred\nline"}})), ServerFailedError, "error: red line"),
]


@pytest.mark.parametrize(("handler", "kind", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
async def test_what_is_no_answer_is_told_apart(
    model_server: FakeModelServer,
    session: aiohttp.ClientSession,
    clock: FakeClock,
    handler: Handler,
    kind: type[CompletionError],
    message: str,
) -> None:
    model_server.script = [handler]

    with pytest.raises(kind, match=message):
        await ask(model_server.url, session, clock)

    assert len(model_server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504, 521, 529])
async def test_a_server_that_is_not_ready_did_not_accept_the_request(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock, status: int
) -> None:
    model_server.script = [refuse(status, **{"Retry-After": "3"})]
    answer = Answer()

    with pytest.raises(UnavailableError, match=f"answered {status}") as caught:
        await endpoint_of(model_server.url, session, clock).ask(REQUEST, answer)

    assert (caught.value.retry_after_s, answer.sent_s, answer.ended_s) == (3.0, None, None)


async def test_a_server_that_hangs_up_before_the_first_token_did_not_accept_the_request(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    model_server.script = [stream(b"", then=hang_up)]

    with pytest.raises(UnavailableError):
        await ask(model_server.url, session, clock)


async def test_a_cancelled_request_closes_its_connection_and_keeps_what_came(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    closed = asyncio.Event()

    async def wait_for_the_end(request: web.Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    model_server.script = [stream(encode(chunk("so far")), then=wait_for_the_end)]
    answer, came = Answer(), asyncio.Event()
    endpoint = endpoint_of(model_server.url, session, clock)
    asking = asyncio.create_task(endpoint.ask(REQUEST, answer, lambda text: came.set()))
    await came.wait()

    asking.cancel()

    await asyncio.wait_for(closed.wait(), 1.0)
    assert (answer.text, answer.problem, answer.ended_s) == ("so far", "is not complete", 100.0)


async def test_the_key_is_sent_and_removed_from_what_the_server_says(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    model_server.script = [refuse(401, {"error": {"message": "Wrong key: sk-secret"}})]

    with pytest.raises(PromptRejectedError, match=r"Wrong key: \*\*\*$"):
        await endpoint_of(model_server.url, session, clock, key="sk-secret").ask(REQUEST, Answer())

    assert model_server.keys == ["Bearer sk-secret"]


async def test_what_the_server_repeats_of_a_prompt_is_removed_from_what_it_says(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    request = ChatRequest("m", [{"role": "user", "content": "Is my neighbour Ann ill?"}], {})
    faults = [{"type": "missing", "loc": ("body", "x"), "msg": "Field required", "input": request.to_body({})}]
    model_server.script = [refuse(400, {"message": str(faults)})]

    with pytest.raises(PromptRejectedError, match=r"answered 400: .*Field required") as caught:
        await endpoint_of(model_server.url, session, clock).ask(request, Answer())

    assert "neighbour" not in str(caught.value)
    assert "Ann" not in str(caught.value)


async def test_an_answer_without_end_is_given_up(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "MAX_ANSWER_CHARACTERS", 10)
    model_server.script = [stream(encode(*[chunk("word")] * 3), then=hang)]

    with pytest.raises(PromptRejectedError, match="an answer of more than 10 characters"):
        await ask(model_server.url, session, clock)


async def test_a_stream_of_comments_is_given_up(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async def keep_alive(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b": ping\n\nevent: ping\ndata: {}\n\n")
            await asyncio.sleep(0.01)

    model_server.script = [keep_alive]
    endpoint = Endpoint(session, model_server.url, now=clock.now, unix_now=lambda: UNIX_S, silence_s=0.1)

    with pytest.raises(UnavailableError, match=r"nothing of the answer came for 0\.1 s"):
        await asyncio.wait_for(endpoint.ask(REQUEST, Answer()), 5)


async def test_an_answer_that_was_garbled_on_its_way_is_given_up(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    came = asyncio.Event()

    async def garble(request: web.Request) -> None:
        await came.wait()
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 504 Gateway Timeout\r\n\r\n")  # in the midst of a chunked body

    model_server.script = [stream(encode(chunk("so far")), then=garble)]
    endpoint = Endpoint(session, model_server.url, now=clock.now, unix_now=lambda: UNIX_S, silence_s=0.1)

    with pytest.raises(ServerFailedError, match=r"aborted the answer: nothing (of the answer )?came for 0\.1 s"):
        await asyncio.wait_for(endpoint.ask(REQUEST, Answer(), lambda text: came.set()), 2)
