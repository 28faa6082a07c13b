"""A server that is not ready is asked again, for as long as the user is willing to wait."""

from random import Random

import aiohttp
import pytest

from perllm.completions.answer import Answer
from perllm.completions.endpoint import Endpoint
from perllm.runner.errors import EndpointError, ExitCode
from perllm.runner.patience import AnswerPatience, PatientEndpoint, Sampling
from perllm.runner.prompts import Prompt
from unit.completions.model_server import FakeModelServer, chunk, encode, hang, hang_up, refuse, stream

PROMPT = Prompt(messages=({"role": "user", "content": "Hi"},))


class LongestPauses(Random):
    """Chance that never makes a pause shorter."""

    def random(self) -> float:
        return 1.0


class SleepingClock:
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
def clock() -> SleepingClock:
    return SleepingClock()


def endpoint_of(
    server_url: str,
    session: aiohttp.ClientSession,
    clock: SleepingClock,
    *,
    sampling: Sampling | None = None,
    patience: AnswerPatience | None = None,
) -> PatientEndpoint:
    return PatientEndpoint(
        Endpoint(session, server_url, now=clock.now, unix_now=lambda: 0.0),
        sampling or Sampling("m"),
        patience or AnswerPatience(20.0, 30.0),
        now=clock.now,
        rng=LongestPauses(),
        sleep=clock.sleep,
    )


async def ask(server_url: str, session: aiohttp.ClientSession, clock: SleepingClock) -> Answer:
    answer = Answer()
    await endpoint_of(server_url, session, clock).ask(PROMPT, answer, lambda text: None)
    return answer


async def test_server_that_loads_is_asked_again_with_growing_pauses(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: SleepingClock
) -> None:
    model_server.script = [
        refuse(503),
        refuse(408),
        refuse(429, **{"Retry-After": "3"}),
        refuse(529),
        stream(b"", then=hang_up),
    ]

    answer = await ask(model_server.url, session, clock)

    assert answer.text == "Hello there"
    assert clock.pauses == [0.25, 0.5, 3.0, 1.0, 1.0]
    assert answer.sent_s == 100.0 + sum(clock.pauses)


async def test_server_that_is_not_there_yet_is_waited_for_only_so_long(
    session: aiohttp.ClientSession, clock: SleepingClock, unused_tcp_port: int
) -> None:
    with pytest.raises(EndpointError, match=r"was not ready within 20 s \(--wait\)") as caught:
        await ask(f"http://127.0.0.1:{unused_tcp_port}/v1", session, clock)

    assert caught.value.code is ExitCode.UNREACHABLE
    assert sum(clock.pauses) <= 20.0


async def test_a_server_that_wants_more_patience_than_there_is_is_given_up_at_once(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: SleepingClock
) -> None:
    model_server.script = [refuse(429, **{"Retry-After": "300"})]

    with pytest.raises(EndpointError, match=r"not ready within 20 s \(--wait\) and asked for a retry in 300 s"):
        await ask(model_server.url, session, clock)

    assert clock.pauses == []


async def test_a_prompt_may_have_a_length_and_a_temperature_of_its_own(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: SleepingClock
) -> None:
    endpoint = endpoint_of(model_server.url, session, clock, sampling=Sampling("m", max_tokens=50, temperature=1.0))
    await endpoint.ask(PROMPT.model_copy(update={"max_tokens": 5, "temperature": 0.0}), Answer(), lambda text: None)

    assert (model_server.requests[0]["max_tokens"], model_server.requests[0]["temperature"]) == (5, 0.0)


async def test_answer_that_takes_too_long_is_given_up_and_what_came_is_kept(
    model_server: FakeModelServer, session: aiohttp.ClientSession, clock: SleepingClock
) -> None:
    model_server.script = [stream(encode(chunk("so far")), then=hang)]
    answer = Answer()
    endpoint = endpoint_of(model_server.url, session, clock, patience=AnswerPatience(0.0, 1.0))

    with pytest.raises(EndpointError, match=r"longer than 1 s \(--timeout\)") as caught:
        await endpoint.ask(PROMPT, answer, lambda text: None)

    assert caught.value.code is ExitCode.OUT_OF_TIME
    assert (answer.text, answer.problem) == ("so far", "is not complete")
