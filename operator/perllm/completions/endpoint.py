"""An OpenAI-compatible model server: one chat completion per call, streamed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import aiohttp
import orjson

from perllm.body_parts import read_parts
from perllm.completions.answer import Answer
from perllm.completions.completion import Reading, find_words, read_failure
from perllm.completions.errors import (
    GENERATION_FAILED,
    NOT_READY,
    TOO_MANY_REQUESTS,
    CompletionError,
    NotAPartError,
    PromptRejectedError,
    ServerFailedError,
    UnavailableError,
)
from perllm.completions.events import DONE, MAX_EVENT_BYTES, ServerEvent, read_events
from perllm.completions.quotes import hide_quotes
from perllm.text import clean_line, error_line

FORMS: Sequence[Mapping[str, Any]] = (
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True},
    {"stream": False},
)
"""How an answer is asked for: older servers do not know the first form, and some do not stream at all."""

UNSUPPORTED = (400, 422, 501)
MAX_REFUSAL_BYTES = 65536
BLANKS = b"\xef\xbb\xbf \t\r\n"
STREAM_STARTS = (b":", b"data:", b"event", b"error", b"retry", b"id:")
"""How event streams begin; servers, and proxies in front of them, give them other content types as well."""
OBJECT_STARTS = (b"{", b"[{")
"""How completions and errors begin that are not streamed; some servers send errors in a list."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a model.

    Attributes:
        model: name of the model.
        messages: the conversation, in the format of the chat API.
        parameters: how the answer is generated, by the names of that API; what is absent is left to the server.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]

    def to_body(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of the request for an answer in one of the `FORMS`."""
        return {"model": self.model, "messages": list(self.messages), **self.parameters, **form}


class Endpoint:
    """Sends requests to a model server.

    Args:
        session: HTTP session.
        url: base URL that ends in the version, for example http://10.0.0.7:8000/v1.
        api_key: key of the server; empty if it has none.
        now: monotonic clock, in seconds.
        unix_now: wall clock, for servers that say at what time to retry.
        silence_s: how long nothing of an answer that has begun may come, in seconds; None for any time.

    Attributes:
        url: where requests are sent.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        api_key: str = "",
        now: Callable[[], float],
        unix_now: Callable[[], float],
        silence_s: float | None = None,
    ) -> None:
        self.url = f"{url.rstrip('/')}/chat/completions"
        self._session = session
        self._key = api_key
        self._now = now
        self._unix_now = unix_now
        self._silence_s = silence_s
        self._form = 0

    async def ask(
        self, request: ChatRequest, answer: Answer, on_text: Callable[[str], None] = lambda text: None
    ) -> None:
        """Fill in the answer to one request. A request that is cancelled closes its connection.

        Raises:
            PromptRejectedError: the server gives no answer to this prompt.
            ServerFailedError: the server failed, or aborted the answer.
            UnavailableError: the server did not accept the request.
        """
        answer.problem = "is not complete"
        try:
            await self._send(request, answer, on_text, self._form)
        except CompletionError as error:
            error.shorten(without=self._key)
            error.args = (hide_quotes(str(error), request.messages),)
            if isinstance(error, UnavailableError):
                if answer.chunks:  # it did accept the request
                    raise ServerFailedError(str(error)) from error
                answer.sent_s = None
            raise
        finally:
            answer.ended_s = None if answer.sent_s is None else self._now()

    async def _send(self, request: ChatRequest, answer: Answer, on_text: Callable[[str], None], form: int) -> None:
        """Ask for the answer in one of the `FORMS`, or in a simpler one if the server does not know it."""
        answer.sent_s = self._now()
        try:
            async with self._session.post(
                self.url,
                data=orjson.dumps(request.to_body(FORMS[form])),
                headers=self._build_headers(),
                allow_redirects=False,  # the key is only for this server
            ) as response:
                if response.status == 200:
                    self._form = form
                    await self._follow(response, answer, on_text)
                    return
                explanation = await self._explain(response)
                if response.status in UNSUPPORTED and "stream" in explanation.lower() and FORMS[form + 1 :]:
                    await self._send(request, answer, on_text, form + 1)
                    return
                raise self._judge(response, f"{self.url} answered {response.status}: {explanation}")
        except (aiohttp.ClientError, OSError) as error:
            message = error_line(error)
            if answer.chunks:
                raise ServerFailedError(f"{self.url} aborted the answer: {message}") from error
            if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientSSLError):
                raise ServerFailedError(f"{self.url} cannot be reached: {message}") from error
            raise UnavailableError(message) from error

    async def _follow(self, response: aiohttp.ClientResponse, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Read an answer, streamed or not."""
        reading, parts = Reading(answer, self._now), read_parts(response.content, self._silence_s)
        start = await _read_start(parts)
        shown = start.lstrip(BLANKS)
        is_stream = response.content_type == "text/event-stream"
        if is_stream or shown.startswith(STREAM_STARTS):
            events = _limit_silence(read_events(_resume(start, parts)), self._silence_s)
            await self._follow_events(events, reading, answer, on_text)
            return
        content = start + await _read_body(parts, MAX_EVENT_BYTES)
        if not shown.startswith(OBJECT_STARTS):
            kind, words = response.content_type, clean_line(content.decode(errors="replace"))
            raise PromptRejectedError(f"{self.url} answered with {kind}, not with a completion: {words}")
        on_text(reading.take_whole(content) + reading.end())

    async def _follow_events(
        self, events: AsyncIterator[ServerEvent], reading: Reading, answer: Answer, on_text: Callable[[str], None]
    ) -> None:
        async for event in events:
            if event.data.strip() == DONE:
                break
            if event.is_error:
                raise read_failure(event.data)
            try:
                piece = reading.take_part(event.data)
            except NotAPartError:
                if answer.finish_reason is None:
                    raise
                continue  # a farewell of its own, or the rest of a connection that was cut
            if piece:
                on_text(piece)
        else:
            if answer.finish_reason is None:
                raise ServerFailedError(f"{self.url} ended the stream before the answer was complete")
        rest = reading.end()
        if rest:
            on_text(rest)

    async def _explain(self, response: aiohttp.ClientResponse) -> str:
        """Return the server's own message in an unsuccessful answer."""
        body = await _read_body(read_parts(response.content, self._silence_s), MAX_REFUSAL_BYTES)
        return find_words(body) or response.reason or "no message"

    def _judge(self, response: aiohttp.ClientResponse, message: str) -> CompletionError:
        if response.status in NOT_READY:
            retry_after_s = read_retry_after_s(response.headers, self._unix_now())
            return UnavailableError(message, retry_after_s, is_full=response.status == TOO_MANY_REQUESTS)
        has_failed = response.status >= 500 or response.status == GENERATION_FAILED
        return (ServerFailedError if has_failed else PromptRejectedError)(message)

    def _build_headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        return {**headers, "Authorization": f"Bearer {self._key}"} if self._key else headers


def read_retry_after_s(headers: Mapping[str, str], unix_now_s: float) -> float:
    """Return after how many seconds a server asks for a retry; 0 if it does not say.

    A date is relative to the server's own clock, if that is known.
    """
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        at_s = _read_date_s(text)
        if at_s is None:
            return 0.0
        seconds = at_s - (_read_date_s(headers.get("Date", "")) or unix_now_s)
    return max(seconds, 0.0) if isfinite(seconds) else 0.0


def _read_date_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


async def _read_body(parts: AsyncIterator[bytes], limit_bytes: int) -> bytes:
    """Return the body, or its first `limit_bytes`."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])


async def _read_start(parts: AsyncIterator[bytes]) -> bytes:
    """Return enough of the body to recognise what it is."""
    start = b""
    async for part in parts:
        start += part
        if len(start.lstrip(BLANKS)) >= max(map(len, STREAM_STARTS)) or len(start) >= MAX_EVENT_BYTES:
            break
    return start


async def _limit_silence(events: AsyncIterator[ServerEvent], silence_s: float | None) -> AsyncIterator[ServerEvent]:
    """Yield events as they come; what only keeps the connection open, such as comments, is none.

    Raises:
        TimeoutError: none came for `silence_s`, in seconds.
    """
    while True:
        try:
            async with asyncio.timeout(silence_s) as limit:
                event = await anext(events, None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"nothing of the answer came for {silence_s:g} s") from error
        if event is None:
            return
        yield event


async def _resume(start: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for part in parts:
        yield part
