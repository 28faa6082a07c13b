"""Chat completions as OpenAI's API and vLLM write them: reads requests, builds answers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from perllm.api.base import MAX_TOKENS
from perllm.api.prompt import estimate_tokens
from perllm_lab.workload.prompts import PromptMark, read_mark

Object = dict[str, Any]

# Of the Azure conversation trace of 2023, in the median, as for a pod that does not state its size.
DEFAULT_OUTPUT_TOKENS = 129
DONE = b"data: [DONE]\n\n"

# Words of equal length, so that any piece of an answer is a slice.
_WORDS = "one two six ten "
_TOKEN_LENGTH = 4
_TOKENS = len(_WORDS) // _TOKEN_LENGTH


class ChatError(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        kind: of the error, in vLLM's words.
    """

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def to_body(self) -> Object:
        """Return the error in OpenAI's form."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.status}}


@dataclass(frozen=True, slots=True)
class ReceivedChat:
    """A request for a chat completion.

    Attributes:
        work: its true size; the length of its answer is limited by the request.
        streams: whether the answer is streamed.
        has_usage: whether a stream ends with the usage.
        finish_reason: why the answer ends.
    """

    work: PromptMark
    streams: bool
    has_usage: bool
    finish_reason: str


def read_chat(content: bytes, model: str) -> ReceivedChat:
    """Read a request to a server of `model`.

    Raises:
        ChatError: it is wrong; the message says what is right.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ChatError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ChatError("the body must be a JSON object")
    if body.get("model") != model:
        raise ChatError(f"The model `{body.get('model')}` does not exist.", 404, "NotFoundError")
    work = _read_work(_read_texts(body.get("messages")), len(content))
    output_tokens = min(work.output_tokens, _read_limit(body))
    return ReceivedChat(
        work=replace(work, output_tokens=output_tokens),
        streams=bool(body.get("stream")),
        has_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        finish_reason="length" if output_tokens < work.output_tokens else "stop",
    )


class ChatAnswer:
    """Builds the answer to a request.

    Args:
        request: the request.
        name: of the answer.
        model: that answers.
        created_s: Unix time.
    """

    def __init__(self, request: ReceivedChat, *, name: str, model: str, created_s: int) -> None:
        self._request = request
        self._head = {"id": name, "created": created_s, "model": model}
        self._sent = 0

    def part(self, tokens: int) -> bytes:
        """Return the next part of the stream, after which the client has `tokens` tokens."""
        delta = {"content": _text(self._sent, tokens)}
        first = {} if self._sent else {"role": "assistant"}
        self._sent = tokens
        return self._event([{"index": 0, "delta": {**first, **delta}, "finish_reason": None}])

    def end(self) -> bytes:
        """Return the rest of the stream."""
        tokens = self._request.work.output_tokens
        rest = self.part(tokens) if tokens > self._sent else b""
        reason = self._event([{"index": 0, "delta": {}, "finish_reason": self._request.finish_reason}])
        usage = self._event([], usage=self._usage()) if self._request.has_usage else b""
        return b"".join((rest, reason, usage, DONE))

    def whole(self) -> Object:
        """Return the answer to a request that does not stream."""
        message = {"role": "assistant", "content": _text(0, self._request.work.output_tokens)}
        choice = {"index": 0, "message": message, "finish_reason": self._request.finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def _usage(self) -> Object:
        work = self._request.work
        return {
            "prompt_tokens": work.prompt_tokens,
            "completion_tokens": work.output_tokens,
            "total_tokens": work.prompt_tokens + work.output_tokens,
        }

    def _event(self, choices: list[Object], **more: Object) -> bytes:
        return (
            b"data: "
            + orjson.dumps({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})
            + b"\n\n"
        )


def _text(begin: int, end: int) -> str:
    """Return the text of the tokens from `begin` to `end`."""
    offset = begin % _TOKENS
    repeated = _WORDS * ((offset + end - begin) // _TOKENS + 1)
    return repeated[offset * _TOKEN_LENGTH : (offset + end - begin) * _TOKEN_LENGTH]


def _read_texts(messages: object) -> list[str]:
    if not isinstance(messages, list) or not messages:
        raise ChatError("messages must be a list of at least one message")
    return [text for message in messages for text in _read_text(message)]


def _read_text(message: object) -> Iterator[str]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        yield content
        return
    if not isinstance(content, list):
        raise ChatError("every message must have a content: a text, or a list of parts")
    for part in content:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _read_work(texts: list[str], size_bytes: int) -> PromptMark:
    mark = read_mark(texts[-1]) if texts else None
    if mark is not None:
        return mark
    return PromptMark("", estimate_tokens(sum(map(len, texts))), DEFAULT_OUTPUT_TOKENS, size_bytes)


def _read_limit(body: Object) -> int:
    """Return how many tokens the answer may have."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is None:
        return MAX_TOKENS
    if type(limit) is int and limit > 0:
        return limit
    raise ChatError(f"max_tokens must be a whole number of at least 1, not {limit}")
