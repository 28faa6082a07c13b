"""Tasks whose pods the API server denies; `Denied` carries out the retries, as the dispatcher does."""

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

import pytest

from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.postponed import RETRIES_PER_SIGN, SIGN_INTERVAL_S, Postponed
from perllm.scheduling.timers import Timer, Timers

pytestmark = pytest.mark.looptime

DAY_S = 86400.0
QUOTA = PodDenial(DenialCause.QUOTA, "exceeded quota")


class WatchedTimers(Timers):
    """Timers that signal when one is added."""

    def __init__(self) -> None:
        super().__init__()
        self.added = asyncio.Event()

    def call_at(self, at_s: float, work: Callable[[], None]) -> Timer:
        self.added.set()
        return super().call_at(at_s, work)


class Denied:
    """A namespace with room for some pods, and which task was tried when."""

    def __init__(self, tasks: int, denial: PodDenial = QUOTA) -> None:
        self.room = 0
        self.denial = denial
        self.tried: list[tuple[str, float]] = []
        self._timers = WatchedTimers()
        self.postponed = Postponed(self._try, timers=self._timers, now_s=now_s, rng=Random(1))
        self._running = asyncio.create_task(self._run())
        for number in range(tasks):
            self._put(f"t{number}")

    def tried_since(self, since_s: float) -> list[str]:
        return [key for key, at_s in self.tried if at_s >= since_s]

    async def _run(self) -> None:
        while True:
            self._timers.run(now_s())
            self._timers.added.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(self._timers.next_s() - now_s(), 0.0), DAY_S)):
                    await self._timers.added.wait()

    def _put(self, key: str) -> None:
        self.postponed.put(key, "n", (float(key[1:]),), self.denial)

    def _try(self, key: str) -> None:
        self.tried.append((key, asyncio.get_running_loop().time()))
        asyncio.get_running_loop().call_later(0.01, self._answer, key)

    def _answer(self, key: str) -> None:
        if self.room > 0:
            self.room -= 1
            self.postponed.accept(key)
        else:
            self._put(key)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_pauses_grow_to_minutes() -> None:
    begun_s, on = now_s(), Denied(1)
    await asyncio.sleep(3600)
    assert 0.5 <= on.tried[0][1] - begun_s <= 1.0
    assert 30 <= len(on.tried) <= 70


async def test_an_api_server_that_does_not_answer_is_asked_again_soon() -> None:
    on = Denied(1, PodDenial(DenialCause.API_SERVER, "gone"))
    await asyncio.sleep(600)
    since_s = now_s()
    await asyncio.sleep(11)
    assert on.tried_since(since_s) != []


async def test_the_api_server_may_ask_for_a_longer_pause() -> None:
    on = Denied(1, PodDenial(DenialCause.API_SERVER, "too many requests", retry_after_s=60.0))
    await asyncio.sleep(59)
    assert on.tried == []


async def test_a_sign_has_the_most_urgent_tasks_retried_at_once() -> None:
    on = Denied(50)
    await asyncio.sleep(300)
    since_s = now_s()
    on.postponed.retry_namespace("n")
    assert on.tried_since(since_s)[:RETRIES_PER_SIGN] == [f"t{number}" for number in range(RETRIES_PER_SIGN)]
    on.postponed.retry_namespace("another")


async def test_each_task_that_gets_its_pod_has_more_tasks_retried() -> None:
    on = Denied(50)
    await asyncio.sleep(300)
    on.room = 50
    on.postponed.retry_namespace("n")
    await asyncio.sleep(0.2)
    assert len(on.postponed) == 0


async def test_signs_without_end_cost_a_few_requests_a_second() -> None:
    on = Denied(50)
    await asyncio.sleep(300)
    since_s = now_s()
    for _ in range(1000):
        on.postponed.retry_namespace("n")
        await asyncio.sleep(SIGN_INTERVAL_S / 100)
    assert len(on.tried_since(since_s)) <= 10 * RETRIES_PER_SIGN + 25


async def test_the_last_of_many_signs_is_not_lost() -> None:
    on = Denied(1)
    await asyncio.sleep(300)
    on.postponed.retry_namespace("n")
    await asyncio.sleep(0.1)
    on.room = 1
    on.postponed.retry_namespace("n")
    await asyncio.sleep(SIGN_INTERVAL_S)
    assert len(on.postponed) == 0


async def test_a_sign_is_followed_again_since_the_api_server_may_know_later() -> None:
    on = Denied(1)
    await asyncio.sleep(300)
    on.postponed.retry_namespace("n")
    await asyncio.sleep(0.1)
    on.room = 1
    await asyncio.sleep(SIGN_INTERVAL_S)
    assert len(on.postponed) == 0


async def test_a_task_that_was_removed_is_not_retried() -> None:
    on = Denied(1)
    on.postponed.remove("t0")
    on.postponed.retry_namespace("n")
    await asyncio.sleep(10)
    assert (on.tried, len(on.postponed), on.postponed.count(DenialCause.QUOTA)) == ([], 0, 0)


async def test_denials_in_a_namespace_are_logged_when_they_begin_and_when_they_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    on = Denied(50)
    await asyncio.sleep(300)
    on.room = 50
    on.postponed.retry_namespace("n")
    await asyncio.sleep(1)
    assert [line.split(",")[0] for line in caplog.messages] == [
        "pods of namespace n are denied",
        "pods of namespace n are created again (QuotaExceeded)",
    ]


async def test_a_namespace_is_forgotten_with_its_tasks_and_logged_again_with_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    on = Denied(2)
    on._put("t0")
    on.postponed.remove("t0")
    on._put("t1")
    assert len(caplog.messages) == 1
    on.postponed.remove("t1")
    on._put("t2")
    assert len(caplog.messages) == 2
