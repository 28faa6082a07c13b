"""What servers, and the proxies in front of them, send that the API of OpenAI does not know."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from perllm.api.report import TokenSource
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest, Endpoint
from perllm.completions.errors import CompletionError, PromptRejectedError, ServerFailedError, UnavailableError
from unit.completions.model_server import USAGE, FakeModelServer, Handler, chunk, encode, refuse, stream

REQUEST = ChatRequest("m", ({"role": "user", "content": "Hi"},), {})
WHOLE = {"object": "chat.completion", "choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}]}
END = encode(chunk(None, "stop"), "[DONE]")


async def ask(server: FakeModelServer, session: aiohttp.ClientSession, handler: Handler) -> Answer:
    server.script = [handler]
    answer = Answer()
    now = asyncio.get_running_loop().time
    await Endpoint(session, server.url, now=now, unix_now=lambda: 0.0).ask(REQUEST, answer)
    return answer


def typed(content_type: str, *pieces: bytes, pause_s: float = 0.0) -> Handler:
    """Send the pieces one by one as something that may not be an event stream."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        return response

    return handler


AB = {
    "empty data to keep the connection": b"data:\n\n" + encode(chunk("a")) + b"data: \n\n" + encode(chunk("b")) + END,
    "a ping that is no JSON": b"event: ping\ndata: 2026-01-01 00:00:00\n\n" + encode(chunk("ab")) + END,
    "comments": b": ping\n\n" + encode(chunk("a")) + b": PROCESSING\n\n" + encode(chunk("b")) + END,
    "no empty lines": (encode(chunk("a"), chunk("b")) + END).replace(b"\n\n", b"\n"),
    "objects without a field name": (encode(chunk("a"), chunk("b")) + END).replace(b"data: {", b"{"),
    "no space after the colon": (encode(chunk("a"), chunk("b")) + END).replace(b"data: ", b"data:"),
    "cut off after the finish reason": encode(chunk("ab"), chunk(None, "stop")) + b'data: {"choices": [], "usa',
    "cut off in [DONE]": encode(chunk("ab"), chunk(None, "stop")) + b"data: [DO",
    "garbage after [DONE]": encode(chunk("ab")) + END + b"data: {oops\n\n\x00",
    "a farewell of its own": encode(chunk("a"), chunk("b", "stop"), None, "bye") + b"event: close\ndata: bye\n\n",
    "null where there is nothing": encode(
        {"choices": [{"delta": {"role": "assistant", "content": None, "tool_calls": None, "refusal": None}}]},
        {"error": None, "choices": [{"delta": {"content": "ab"}, "finish_reason": None}], "usage": None},
    )
    + END,
    "a finish reason of null in words": encode(chunk("a", "null"), chunk("b", "stop"), "[DONE]"),
    "completions without chat": encode({"choices": [{"text": "ab", "finish_reason": "eos_token"}]}, "[DONE]"),
}


@pytest.mark.parametrize("content", AB.values(), ids=AB.keys())
async def test_the_text_is_taken(model_server: FakeModelServer, session: aiohttp.ClientSession, content: bytes) -> None:
    answer = await ask(model_server, session, stream(content))
    assert (answer.text, answer.problem) == ("ab", "")


async def test_objects_that_take_several_lines_are_one_event(
    model_server: FakeModelServer, session: aiohttp.ClientSession
) -> None:
    lines = b'data: {"choices": [\ndata: {"delta": {"content": "ab"},\ndata: "finish_reason": "stop"}\ndata: ]}\n\n'
    assert (await ask(model_server, session, stream(lines))).text == "ab"


ONE_CHUNK = encode({**WHOLE, "usage": USAGE}, "[DONE]")


@pytest.mark.parametrize("content", [encode(WHOLE, "[DONE]"), encode(WHOLE).removeprefix(b"data: ")])
async def test_a_whole_answer_in_a_stream_is_not_one_token(
    model_server: FakeModelServer, session: aiohttp.ClientSession, content: bytes
) -> None:
    answer = await ask(model_server, session, stream(content))
    assert (answer.text, answer.output_tokens, answer.first_token_s) == ("ab", None, None)


async def test_the_tokens_of_a_whole_answer_are_those_that_the_server_counted(
    model_server: FakeModelServer, session: aiohttp.ClientSession
) -> None:
    answer = await ask(model_server, session, stream(ONE_CHUNK))
    assert (answer.output_tokens, answer.token_source) == (USAGE["completion_tokens"], TokenSource.USAGE)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream"])
async def test_a_stream_by_another_name_is_measured_as_one(
    model_server: FakeModelServer, session: aiohttp.ClientSession, content_type: str
) -> None:
    pieces = (b"\n", encode(chunk("a")), encode(chunk("b")) + END)
    # Far more than a busy machine delays the first piece.
    answer = await ask(model_server, session, typed(content_type, *pieces, pause_s=0.3))
    assert answer.text == "ab"
    assert answer.first_token_s is not None
    assert answer.length_s is not None
    assert answer.length_s > answer.first_token_s + 0.1


async def test_a_page_that_mentions_data_is_not_a_stream(
    model_server: FakeModelServer, session: aiohttp.ClientSession
) -> None:
    page = b"<html><img src='data:image/png;base64,xx'>Please log in</html>"
    with pytest.raises(PromptRejectedError, match=r"answered with text/html, not with a completion: .*log in"):
        await ask(model_server, session, typed("text/html", page))


NOT_ACCEPTED: dict[str, object] = {
    "full": {"error": {"message": "The request queue is full.", "type": "SERVICE_UNAVAILABLE", "code": 503}},
    "loading": {"object": "error", "message": "Loading model", "code": "503"},
    "rate": {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}},
    "overloaded": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "overloaded TGI": {"error": "Model is overloaded", "error_type": "overloaded"},
    "overloaded TGI, by its chat API": {"error": {"message": "Model is overloaded", "http_status_code": 429}},
    "many": {"error": {"message": "Too many", "code": 429}},
    "in a list, as Google sends it": [{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}],
}


@pytest.mark.parametrize("error", NOT_ACCEPTED.values(), ids=NOT_ACCEPTED.keys())
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_server_may_say_with_status_200_that_it_does_not_accept_a_request(
    model_server: FakeModelServer, session: aiohttp.ClientSession, error: object, is_streamed: bool
) -> None:
    handler = stream(encode(chunk(""), error, "[DONE]")) if is_streamed else refuse(200, error)
    with pytest.raises(UnavailableError) as caught:
        await ask(model_server, session, handler)
    assert caught.value.is_full == ("429" in str(error))


LATE = {
    "TGI on a prompt": (
        encode({"error": "inputs must have less than 4096 tokens", "error_type": "validation"}),
        PromptRejectedError,
        "error: inputs must have less than 4096 tokens$",
    ),
    "TGI on itself": (
        encode(chunk("half"), {"error": "CUDA out of memory", "error_type": "generation"}),
        ServerFailedError,
        "error: CUDA out of memory$",
    ),
    "424 in words": (encode({"error": {"code": 424, "message": "died"}}), ServerFailedError, "error: died$"),
    "overloaded in the middle": (encode(chunk("half"), NOT_ACCEPTED["full"]), ServerFailedError, "queue is full"),
    "cut off in an object": (
        encode(chunk("half")) + b'data: {"choices": [{"delta": {"content": "an',
        ServerFailedError,
        "ended the stream before",
    ),
    "cut off after null in words": (encode(chunk("half", "null")), ServerFailedError, "ended the stream before"),
    "an abort as an object": (
        encode({"choices": [{"delta": {"content": "half"}, "finish_reason": {"type": "abort"}}]}, "[DONE]"),
        ServerFailedError,
        "finish reason abort",
    ),
    "reasoning alone": (
        encode({"choices": [{"delta": {"reasoning_content": "hm"}}]}, chunk(None, "length"), "[DONE]"),
        PromptRejectedError,
        "the answer has no text, finish reason length",
    ),
    "text that nobody can see": (encode(chunk(" \x00\u200b\n"), chunk(None, "stop")), PromptRejectedError, "no text"),
    "a refusal": (
        encode({"choices": [{"delta": {"refusal": "I will not"}}]}) + END,
        PromptRejectedError,
        "the model refused to answer$",
    ),
    "a refusal in parts": (
        encode(chunk([{"type": "refusal", "refusal": "No"}])) + END,  # type: ignore[arg-type]
        PromptRejectedError,
        "the model refused to answer$",
    ),
    "an error event without words": (b"event: error\ndata:\n\n", ServerFailedError, "reported an error"),
    "a broken piece, which is not quoted": (
        encode({"choices": [{"delta": {"content": ["secret", 5]}}]}),
        PromptRejectedError,
        "not part of a chat completion$",
    ),
    "words, which are": (b"data: ENGINE DIED\n\n", PromptRejectedError, "not part of a chat completion: ENGINE DIED$"),
    "calls of tools": (
        encode({"choices": [{"delta": {"content": None, "tool_calls": [{"index": 0}]}}]}, chunk(None, "tool_calls")),
        PromptRejectedError,
        "empty answer, finish reason tool_calls",
    ),
}


@pytest.mark.parametrize(("content", "kind", "message"), LATE.values(), ids=LATE.keys())
async def test_what_came_is_not_an_answer(
    model_server: FakeModelServer,
    session: aiohttp.ClientSession,
    content: bytes,
    kind: type[CompletionError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        await ask(model_server, session, stream(content))
