"""An OpenAI-compatible model server: one chat completion at a time, streamed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from random import Random
from typing import Any

import aiohttp
import orjson

from perllm.backoff import Backoff
from perllm.runner.answer import Answer
from perllm.runner.completion import Reading, find_words, read_failure
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.events import MAX_EVENT_BYTES, ServerEvent, read_events
from perllm.runner.prompts import Prompt
from perllm.text import clean_line, cut, error_line

log = logging.getLogger(__name__)

PAUSES = Backoff(first_s=0.25, limit_s=1.0)
NOT_READY = frozenset({408, 425, 429, 502, 503, 504, *range(520, 530)})
"""Statuses of servers, and of proxies in front of them, while a model is being loaded or all slots are taken."""

MAX_REFUSAL_BYTES = 65536
MAX_MESSAGE = 800


class _NotReadyError(Exception):
    """The server does not answer yet, but may do so soon."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated; None leaves a parameter to the server."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None

    def to_body(self, prompt: Prompt, *, with_usage: bool = True) -> dict[str, Any]:
        """Return the request for a prompt."""
        optional = {
            "stream_options": {"include_usage": True} if with_usage else None,
            "max_tokens": self.max_tokens if prompt.max_tokens is None else prompt.max_tokens,
            "temperature": self.temperature if prompt.temperature is None else prompt.temperature,
        }
        return {
            "model": self.model,
            "messages": list(prompt.messages),
            "stream": True,
            **{key: value for key, value in optional.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class AnswerPatience:
    """How long to wait, in seconds: for a server to become ready, and for one answer."""

    wait_s: float
    timeout_s: float


class Endpoint:
    """Sends prompts to a model server.

    Args:
        session: HTTP session, with the credentials.
        url: base URL that ends in the version, for example http://10.0.0.7:8000/v1.
        sampling: how answers are generated.
        patience: how long to wait.
        now: monotonic clock, in seconds.
        unix_now: wall clock, for servers that say at what time to retry.
        rng: jitter of pauses.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        sampling: Sampling,
        patience: AnswerPatience,
        *,
        now: Callable[[], float],
        unix_now: Callable[[], float],
        rng: Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._sampling = sampling
        self._patience = patience
        self._now = now
        self._unix_now = unix_now
        self._rng = rng
        self._sleep = sleep
        self._has_logged_waiting = False
        self._has_usage = True

    async def ask(self, prompt: Prompt, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Fill in the answer to a prompt; retries with growing pauses while the server is not ready.

        Raises:
            EndpointError: there is no complete answer; the message says what to do.
        """
        asked_s, failures = self._now(), 0
        answer.problem = "is not complete"
        while True:
            try:
                async with asyncio.timeout(self._patience.timeout_s):
                    await self._attempt(prompt, answer, on_text)
                return
            except _NotReadyError as error:
                answer.sent_s = None  # the server did not accept the request
                failures += 1
                pause_s = max(PAUSES.pause_s(failures, self._rng), error.retry_after_s)
                if self._now() - asked_s + pause_s > self._patience.wait_s:
                    later = f" and asked for a retry in {pause_s:.0f} s" if error.retry_after_s else ""
                    message = f"{self._url} was not ready within {self._patience.wait_s:g} s (--wait){later}: "
                    raise EndpointError(ExitCode.UNREACHABLE, message + self._describe(error)) from error
                self._log_waiting(error)
            except EndpointError as error:
                raise EndpointError(error.code, self._describe(error)) from error
            except TimeoutError as error:
                message = f"{self._url}: the answer took longer than {self._patience.timeout_s:g} s (--timeout)"
                raise EndpointError(ExitCode.OUT_OF_TIME, message) from error
            finally:
                answer.ended_s = None if answer.sent_s is None else self._now()
            await self._sleep(pause_s)

    async def _attempt(self, prompt: Prompt, answer: Answer, on_text: Callable[[str], None]) -> None:
        body = self._sampling.to_body(prompt, with_usage=self._has_usage)
        answer.sent_s = self._now()
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(body),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
                allow_redirects=False,  # the key is only for this server
            ) as response:
                if response.status == 200:
                    await self._follow(response, answer, on_text)
                    return
                explanation = await _explain(response)
                if "stream_options" in body and response.status in (400, 422) and "stream_options" in explanation:
                    self._has_usage = False  # an older server
                    await self._attempt(prompt, answer, on_text)
                    return
                raise self._judge(response, f"{self._url} answered {response.status}: {explanation}")
        except (aiohttp.ClientError, OSError) as error:
            message = error_line(error)
            if answer.chunks:
                raise EndpointError(ExitCode.UNREACHABLE, f"{self._url} aborted the answer: {message}") from error
            if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientSSLError):
                raise EndpointError(ExitCode.UNREACHABLE, f"{self._url} cannot be reached: {message}") from error
            raise _NotReadyError(message) from error

    async def _follow(self, response: aiohttp.ClientResponse, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Read an answer, streamed or not."""
        reading = Reading(answer, self._now)
        chunks: AsyncIterator[bytes] = response.content.iter_any()
        if response.content_type != "text/event-stream":
            content = await _read_body(response, MAX_EVENT_BYTES)
            if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                on_text(reading.take_whole(content) + reading.end())
                return
            if b"data:" not in content:
                kind, words = response.content_type, clean_line(content.decode(errors="replace"))
                message = f"{self._url} answered with {kind}, not with a completion: {words}"
                raise EndpointError(ExitCode.REFUSED, message)
            chunks = _once(content)
        await self._follow_events(read_events(chunks), reading, answer, on_text)

    async def _follow_events(
        self, events: AsyncIterator[ServerEvent], reading: Reading, answer: Answer, on_text: Callable[[str], None]
    ) -> None:
        async for event in events:
            if event.data.strip() == b"[DONE]":
                break
            if event.is_error:
                raise read_failure(event.data)
            piece = reading.take_part(event.data)
            if piece:
                on_text(piece)
        else:
            if answer.finish_reason is None:
                raise EndpointError(
                    ExitCode.UNREACHABLE, f"{self._url} ended the stream before the answer was complete"
                )
        rest = reading.end()
        if rest:
            on_text(rest)

    def _judge(self, response: aiohttp.ClientResponse, message: str) -> Exception:
        if response.status in NOT_READY:
            return _NotReadyError(message, read_retry_after_s(response.headers, self._unix_now()))
        return EndpointError(ExitCode.UNREACHABLE if response.status >= 500 else ExitCode.REFUSED, message)

    def _log_waiting(self, error: _NotReadyError) -> None:
        if not self._has_logged_waiting:
            log.info("waiting up to %g s for %s: %s", self._patience.wait_s, self._url, self._describe(error))
            self._has_logged_waiting = True

    def _describe(self, error: Exception) -> str:
        """Return the message of an error without the API key, which some servers repeat."""
        key = self._session.headers.get("Authorization", "").removeprefix("Bearer ")
        return cut(str(error).replace(key, "***") if key else str(error), MAX_MESSAGE)


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


async def _explain(response: aiohttp.ClientResponse) -> str:
    """Return the server's own message in an unsuccessful answer."""
    return find_words(await _read_body(response, MAX_REFUSAL_BYTES)) or response.reason or "no message"


async def _read_body(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Return the body, or its first `limit_bytes`."""
    try:
        return await response.content.readexactly(limit_bytes)
    except asyncio.IncompleteReadError as shorter:
        return shorter.partial


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
