"""What becomes of the prompts of a task, whatever the server does."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from perllm.agent.inquiry import PATIENCE_S, Inquiry, inquire
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest
from perllm.completions.errors import CompletionError, PromptRejectedError, ServerFailedError, UnavailableError

pytestmark = pytest.mark.looptime

FAILED, REJECTED, AWAY = ServerFailedError("failed"), PromptRejectedError("rejected"), UnavailableError("away")
THREE = ("a", "b", "c")


class Server:
    """Answers a prompt as scripted, then completely.

    Attributes:
        asked: the prompts, in order.
        asked_s: when they were asked.
    """

    def __init__(self, **script: Sequence[CompletionError | None]) -> None:
        self.asked: list[str] = []
        self.asked_s: list[float] = []
        self._script = {prompt: list(errors) for prompt, errors in script.items()}

    async def ask(self, request: ChatRequest, answer: Answer) -> CompletionError | None:
        self.asked.append(request.model)
        self.asked_s.append(asyncio.get_running_loop().time())
        errors = self._script.get(request.model)
        return errors.pop(0) if errors else None

    async def inquire(self, *prompts: str, retries: int | None = 0) -> Inquiry:
        requests = [ChatRequest(prompt, (), {}) for prompt in prompts]
        return await inquire(requests, self.ask, retries=retries, rng=Random(0))


def errors(inquiry: Inquiry) -> list[CompletionError | None]:
    return [reply.error for reply in inquiry.replies]


@pytest.mark.parametrize("error", [None, FAILED, REJECTED, AWAY])
async def test_a_prompt_without_a_list_is_asked_once_whatever_becomes_of_it(error: CompletionError | None) -> None:
    server = Server(a=[error])

    inquiry = await server.inquire("a", retries=None)

    assert (server.asked, inquiry.error, inquiry.has_list) == (["a"], error, False)


async def test_prompts_at_which_the_server_failed_are_repeated_after_the_others_as_often_as_the_task_says() -> None:
    server = Server(a=[FAILED, FAILED], b=[FAILED] * 9)

    inquiry = await server.inquire(*THREE, retries=2)

    assert server.asked == ["a", "b", "c", "a", "b", "a", "b"]
    assert (errors(inquiry), inquiry.repeated, inquiry.error) == ([None, FAILED, None], 4, None)


async def test_a_prompt_that_the_server_rejects_is_not_repeated() -> None:
    server = Server(a=[REJECTED])

    inquiry = await server.inquire(*THREE, retries=2)

    assert server.asked == list(THREE)
    assert (errors(inquiry), inquiry.error) == ([REJECTED, None, None], None)


async def test_a_server_that_answers_nothing_is_not_asked_a_second_time() -> None:
    server = Server(a=[FAILED], b=[FAILED], c=[REJECTED])

    inquiry = await server.inquire(*THREE, retries=2)

    assert (server.asked, inquiry.error) == (list(THREE), REJECTED)


async def test_a_server_that_is_not_ready_is_asked_again_after_a_pause() -> None:
    server = Server(b=[AWAY, UnavailableError("busy", 7.0)])

    inquiry = await server.inquire(*THREE)

    assert server.asked == ["a", "b", "b", "b", "c"]
    assert 0 < server.asked_s[2] - server.asked_s[1] < 1
    assert server.asked_s[3] - server.asked_s[2] == 7
    assert (errors(inquiry), inquiry.repeated) == ([None] * 3, 2)


async def test_a_server_that_goes_away_while_failed_prompts_are_repeated_costs_no_answers() -> None:
    server = Server(a=[FAILED, *[AWAY] * 99])

    inquiry = await server.inquire(*THREE, retries=1)

    assert (errors(inquiry), inquiry.error) == ([AWAY, None, None], None)


async def test_a_server_that_remains_away_sends_all_prompts_back() -> None:
    server = Server(b=[AWAY] * 99)

    inquiry = await server.inquire(*THREE)

    assert inquiry.error is AWAY
    assert "c" not in server.asked
    assert PATIENCE_S / 2 < server.asked_s[-1] - server.asked_s[0] <= PATIENCE_S
    assert len(inquiry.answers) == 1
