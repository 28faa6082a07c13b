"""An OpenAI-compatible model server: one chat completion at a time, streamed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from perllm.api.base import MAX_TOKENS
from perllm.runner.answer import Answer
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.events import read_events
from perllm.runner.prompts import Prompt

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 1.0
NOT_READY = (429, 502, 503, 504)
"""What servers and the proxies before them answer while a model is being loaded or all its slots are taken."""

MAX_REFUSAL_BYTES = 65536
MAX_EXPLANATION = 500


class _NotReadyError(Exception):
    """The server does not answer yet; it may soon."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated; None leaves it to the server."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None

    def to_body(self, prompt: Prompt, *, with_usage: bool = True) -> dict[str, Any]:
        """Return the request for a prompt."""
        optional = {
            "stream_options": {"include_usage": True} if with_usage else None,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        return {
            "model": self.model,
            "messages": list(prompt),
            "stream": True,
            **{key: value for key, value in optional.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: for a server that is not ready yet, and for one answer of a server that is."""

    wait_s: float
    timeout_s: float


class Endpoint:
    """Asks a model server.

    Args:
        session: HTTP; carries the credentials.
        url: base URL that ends in the version, for example http://10.0.0.7:8000/v1.
        sampling: how answers are generated.
        patience: how long to wait.
        now: monotonic clock, in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        sampling: Sampling,
        patience: Patience,
        *,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._sampling = sampling
        self._patience = patience
        self._now = now
        self._sleep = sleep
        self._is_waiting_told = False
        self._tells_usage = True

    async def ask(self, prompt: Prompt, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Fill in the answer to a prompt; a server that does not answer yet is asked again with growing pauses.

        Raises:
            EndpointError: there is no answer, or not all of it; the message says what to do.
        """
        asked_s, pause_s = self._now(), FIRST_PAUSE_S
        answer.problem = "is not complete"
        while True:
            try:
                async with asyncio.timeout(self._patience.timeout_s):
                    await self._attempt(prompt, answer, on_text)
                return
            except _NotReadyError as error:
                answer.sent_s = None  # nobody took it
                next_s = max(pause_s, error.retry_after_s)
                if self._now() - asked_s + next_s > self._patience.wait_s:
                    message = f"{self._url} was not ready within {self._patience.wait_s:g} s (--wait): {error}"
                    raise EndpointError(ExitCode.UNREACHABLE, message) from error
                self._tell_waiting(error)
            except TimeoutError as error:
                message = f"{self._url}: the answer took longer than {self._patience.timeout_s:g} s (--timeout)"
                raise EndpointError(ExitCode.OUT_OF_TIME, message) from error
            finally:
                answer.ended_s = None if answer.sent_s is None else self._now()
            await self._sleep(next_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _attempt(self, prompt: Prompt, answer: Answer, on_text: Callable[[str], None]) -> None:
        body = self._sampling.to_body(prompt, with_usage=self._tells_usage)
        answer.sent_s = self._now()
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(body),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
                allow_redirects=False,  # the key is for this server
            ) as response:
                if response.status == 200:
                    await self._follow(response, answer, on_text)
                    return
                explanation = await _explain(response)
                if "stream_options" in body and response.status in (400, 422) and "stream_options" in explanation:
                    self._tells_usage = False  # an older server
                    await self._attempt(prompt, answer, on_text)
                    return
                raise _judge(response, f"{self._url} answered {response.status}: {explanation}")
        except (aiohttp.ClientError, OSError) as error:
            message = str(error) or type(error).__name__
            if answer.chunks:
                raise EndpointError(ExitCode.UNREACHABLE, f"{self._url} broke off: {message}") from error
            if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientSSLError):
                raise EndpointError(ExitCode.UNREACHABLE, f"{self._url} cannot be asked: {message}") from error
            raise _NotReadyError(message) from error

    async def _follow(self, response: aiohttp.ClientResponse, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Take in the stream of an answer."""
        if response.content_type != "text/event-stream":
            kind, words = response.content_type, await _explain(response)
            message = f"{self._url} answered with {kind}, not with a stream of events: {words}"
            raise EndpointError(ExitCode.REFUSED, message)
        async for event in read_events(response.content.iter_any()):
            if event.strip() == b"[DONE]":
                break
            try:
                piece = _take(orjson.loads(event), answer, self._now)
            except (orjson.JSONDecodeError, AttributeError, IndexError, KeyError, TypeError) as error:
                message = f"{self._url} sent what is no part of a chat completion: {event[:100]!r}"
                raise EndpointError(ExitCode.REFUSED, message) from error
            if piece:
                on_text(piece)
        else:
            if answer.finish_reason is None:
                raise EndpointError(
                    ExitCode.UNREACHABLE, f"{self._url} ended the stream before the answer was complete"
                )
        answer.problem = ""

    def _tell_waiting(self, error: _NotReadyError) -> None:
        if not self._is_waiting_told:
            log.info("waiting up to %g s for %s: %s", self._patience.wait_s, self._url, error)
            self._is_waiting_told = True


def _take(chunk: dict[str, Any], answer: Answer, now: Callable[[], float]) -> str:
    """Add a chunk to the answer and return its text."""
    if chunk.get("error"):
        raise _error_in_stream(chunk["error"])
    usage = chunk.get("usage")
    if usage:
        answer.told_prompt_tokens = _read_count(usage.get("prompt_tokens"))
        answer.told_output_tokens = _read_count(usage.get("completion_tokens"))
    choices = chunk.get("choices")
    if not choices:
        return ""
    answer.finish_reason = choices[0].get("finish_reason") or answer.finish_reason
    delta: Mapping[str, Any] = choices[0].get("delta") or {}
    piece = delta.get("content") or ""
    if not isinstance(piece, str):
        raise TypeError("content must be a text")
    if piece or delta.get("reasoning_content") or delta.get("reasoning"):
        answer.first_s = now() if answer.first_s is None else answer.first_s
        answer.chunks += 1
        answer.pieces.append(piece)
    return piece


def _read_count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _judge(response: aiohttp.ClientResponse, message: str) -> Exception:
    if response.status in NOT_READY:
        after = response.headers.get("Retry-After", "")
        return _NotReadyError(message, float(after) if after.isdecimal() else 0.0)
    return EndpointError(ExitCode.UNREACHABLE if response.status >= 500 else ExitCode.REFUSED, message)


def _error_in_stream(error: object) -> EndpointError:
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    is_refusal = isinstance(code, int) and 400 <= code < 500
    kind = ExitCode.REFUSED if is_refusal else ExitCode.UNREACHABLE
    return EndpointError(kind, f"the server broke off the answer: {str(message or error)[:MAX_EXPLANATION]}")


async def _explain(response: aiohttp.ClientResponse) -> str:
    """Return the server's own words of a refusal, without the key, which some servers repeat."""
    try:
        content = await response.content.readexactly(MAX_REFUSAL_BYTES)
    except asyncio.IncompleteReadError as shorter:
        content = shorter.partial
    try:
        values = orjson.loads(content)
        error = values.get("error", values)
        words = error.get("message") or error if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, AttributeError):
        words = content.decode(errors="replace").strip() or response.reason
    key = response.request_info.headers.get("Authorization", "").removeprefix("Bearer ")
    text = str(words)
    return (text.replace(key, "***") if key else text)[:MAX_EXPLANATION]
