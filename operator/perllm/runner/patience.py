"""Repeats a request while the model server is not ready."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from perllm.backoff import Backoff
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest, Endpoint
from perllm.completions.errors import PromptRejectedError, ServerFailedError, UnavailableError
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.prompts import Prompt

log = logging.getLogger(__name__)

PAUSES = Backoff(first_s=0.25, limit_s=1.0)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated; None leaves a parameter to the server."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None

    def to_request(self, prompt: Prompt) -> ChatRequest:
        """Return the request for a prompt, whose own parameters take precedence."""
        common = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        given = {key: value for key, value in common.items() if value is not None}
        return ChatRequest(prompt.model or self.model, prompt.messages, {**given, **prompt.parameters})


@dataclass(frozen=True, slots=True)
class AnswerPatience:
    """How long to wait, in seconds: for a server to become ready, and for one answer."""

    wait_s: float
    timeout_s: float


class PatientEndpoint:
    """Sends prompts to a model server, and retries while it is not ready.

    Args:
        endpoint: the server.
        sampling: how answers are generated.
        patience: how long to wait.
        now: monotonic clock, in seconds.
        rng: jitter of pauses.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sampling: Sampling,
        patience: AnswerPatience,
        *,
        now: Callable[[], float],
        rng: Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._endpoint = endpoint
        self._sampling = sampling
        self._patience = patience
        self._now = now
        self._rng = rng
        self._sleep = sleep
        self._has_logged_waiting = False

    async def ask(self, prompt: Prompt, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Fill in the answer to a prompt; retries with growing pauses while the server is not ready.

        Raises:
            EndpointError: there is no complete answer; the message says what to do.
        """
        asked_s, failures = self._now(), 0
        request = self._sampling.to_request(prompt)
        while True:
            try:
                async with asyncio.timeout(self._patience.timeout_s):
                    await self._endpoint.ask(request, answer, on_text)
                return
            except UnavailableError as error:
                failures += 1
                pause_s = max(PAUSES.pause_s(failures, self._rng), error.retry_after_s)
                if self._now() - asked_s + pause_s > self._patience.wait_s:
                    raise EndpointError(ExitCode.UNREACHABLE, self._describe_wait(error, pause_s)) from error
                self._log_waiting(error)
            except PromptRejectedError as error:
                raise EndpointError(ExitCode.REJECTED, str(error), may_answer_others=True) from error
            except ServerFailedError as error:
                raise EndpointError(ExitCode.UNREACHABLE, str(error), may_answer_others=True) from error
            except TimeoutError as error:
                limit = f"{self._patience.timeout_s:g} s (--timeout)"
                message = f"{self._endpoint.url}: the answer took longer than {limit}"
                raise EndpointError(ExitCode.OUT_OF_TIME, message, may_answer_others=True) from error
            await self._sleep(pause_s)

    def _describe_wait(self, error: UnavailableError, pause_s: float) -> str:
        later = f" and asked for a retry in {pause_s:.0f} s" if error.retry_after_s else ""
        return f"{self._endpoint.url} was not ready within {self._patience.wait_s:g} s (--wait){later}: {error}"

    def _log_waiting(self, error: UnavailableError) -> None:
        if not self._has_logged_waiting:
            log.info("waiting up to %g s for %s: %s", self._patience.wait_s, self._endpoint.url, error)
            self._has_logged_waiting = True
