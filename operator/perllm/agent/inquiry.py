"""Asks a model server what a task wants to know: one prompt, or those of a list, one after the other.

A task takes one slot, however many prompts it has, so time and energy per token are predicted and learned as for any
other task. Of the prompts of a list

* one that the server does not accept is asked again after a pause, for up to `PATIENCE_S`; then all of them go back to
  the queue, since another node may answer them, unless each has been asked already;
* those on which the server failed are repeated at the end, as often as the task says, unless it failed on all of them;
* one that the server rejects, or does not answer, remains without an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from perllm.backoff import Backoff
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest
from perllm.completions.errors import CompletionError, ServerFailedError, UnavailableError

PATIENCE_S = 30.0
PAUSES = Backoff(first_s=0.5, limit_s=5.0)

Ask = Callable[[ChatRequest, Answer], Awaitable[CompletionError | None]]
"""Makes a request, fills in the answer, and returns why it is not complete; None if it is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one prompt, as far as it came, and why it is not complete; None if it is."""

    answer: Answer
    error: CompletionError | None


@dataclass(slots=True)
class Inquiry:
    """What became of the prompts of a task.

    Attributes:
        replies: the last reply to each prompt, in their order.
        repeated: requests that were made again.
        error: why the attempt has no result; None if it has, that is, if a prompt was answered.
        has_list: whether the task states a list of prompts, even if that is of one.
    """

    replies: list[Reply]
    repeated: int = 0
    error: CompletionError | None = None
    has_list: bool = False

    @property
    def answers(self) -> list[Answer]:
        """The complete answers."""
        return [reply.answer for reply in self.replies if reply.error is None]


async def inquire(requests: Sequence[ChatRequest], ask: Ask, *, retries: int | None, rng: Random) -> Inquiry:
    """Ask all prompts, and return what became of them.

    Args:
        requests: one for each prompt.
        ask: makes a request.
        retries: how many times a failed prompt of a list is repeated; None if there is one prompt and no list.
        rng: jitter of pauses.
    """
    if retries is None:
        reply = await _ask_once(requests[0], ask)
        return Inquiry([reply], error=reply.error)
    not_asked = Reply(Answer(), UnavailableError("was not asked"))
    inquiry, due = Inquiry([not_asked] * len(requests), has_list=True), list(range(len(requests)))
    for turn in range(1 + retries):
        inquiry.repeated += len(due) if turn else 0
        for index in due:
            reply = inquiry.replies[index] = await _ask_patiently(requests[index], ask, inquiry, rng)
            if isinstance(reply.error, UnavailableError):
                inquiry.error = None if turn else reply.error
                return inquiry
        due = [index for index in due if isinstance(inquiry.replies[index].error, ServerFailedError)]
        if not due or not inquiry.answers:
            break
    inquiry.error = None if inquiry.answers else inquiry.replies[-1].error
    return inquiry


async def _ask_once(request: ChatRequest, ask: Ask) -> Reply:
    answer = Answer()
    return Reply(answer, await ask(request, answer))


async def _ask_patiently(request: ChatRequest, ask: Ask, inquiry: Inquiry, rng: Random) -> Reply:
    """Ask a prompt of a list until the server has accepted it, or for as long as there is patience."""
    waited_s, refusals = 0.0, 0
    while True:
        reply = await _ask_once(request, ask)
        if not isinstance(reply.error, UnavailableError):
            return reply
        refusals += 1
        pause_s = max(PAUSES.pause_s(refusals, rng), reply.error.retry_after_s)
        waited_s += pause_s
        if waited_s > PATIENCE_S:
            return reply
        inquiry.repeated += 1
        await asyncio.sleep(pause_s)
