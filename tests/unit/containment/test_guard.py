"""What goes wrong about one object ends nothing else."""

import asyncio
import logging
from collections import Counter
from random import Random

import pytest

from perllm.backoff import Backoff
from perllm.guard import MAX_TROUBLES, Guard

pytestmark = pytest.mark.looptime


class Broken:
    """Work that fails so many times and then goes well."""

    def __init__(self, failures: int, words: str = "no such field") -> None:
        self.left = failures
        self.words = words
        self.at_s: list[float] = []

    def __call__(self) -> None:
        self.at_s.append(asyncio.get_running_loop().time())
        if self.left:
            self.left -= 1
            raise KeyError(self.words)


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def guard(counts: Counter[str]) -> Guard:
    return Guard(lambda kind: counts.update([kind]), Random(0), Backoff(1.0, 60.0))


async def test_a_failure_is_logged_once_counted_and_told(
    guard: Guard, counts: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    work = Broken(5)
    assert not guard.run("task", "lab/t", work, on_fault=told.append)
    await asyncio.sleep(300)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "task lab/t: unexpected failure" in caplog.text
    assert counts == {"task": 5}
    assert told == ["KeyError: 'no such field'"] * 5


async def test_the_work_is_done_again_after_growing_pauses_until_it_goes_well(guard: Guard) -> None:
    work = Broken(4)
    guard.run("task", "lab/t", work)
    await asyncio.sleep(300)
    pauses = [after - before for before, after in zip(work.at_s, work.at_s[1:], strict=False)]
    assert len(pauses) == 4
    assert pauses == sorted(pauses)
    assert guard.troubled == []


async def test_newer_work_takes_the_place_of_what_waits(guard: Guard) -> None:
    old, new = Broken(99), Broken(0)
    guard.run("pod", "lab/p", old)
    assert guard.run("pod", "lab/p", new)
    await asyncio.sleep(300)
    assert (len(old.at_s), len(new.at_s)) == (1, 1)


async def test_an_object_that_is_gone_is_left_alone(guard: Guard) -> None:
    work = Broken(99)
    guard.run("task", "lab/t", work)
    guard.clear("task", "lab/t")
    await asyncio.sleep(300)
    assert len(work.at_s) == 1


async def test_even_telling_may_fail(guard: Guard) -> None:
    def fail(_: str) -> None:
        raise ValueError("nobody listens")

    assert not guard.run("task", "lab/t", Broken(1), on_fault=fail)
    assert guard.run("task", "lab/u", Broken(0))


async def test_control_characters_of_a_name_reach_no_log(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    guard.run("node", "a\x1b[2Jb", Broken(1, "bad\x1b[31m\nline"), again=False)
    assert "\x1b" not in caplog.records[0].getMessage()


async def test_names_of_objects_that_may_be_gone_are_forgotten_in_time(guard: Guard) -> None:
    guard.run("task", "lab/retried", Broken(1))
    for number in range(2 * MAX_TROUBLES):
        guard.note("pod", str(number), KeyError("no such field"))
    assert len(guard.troubled) == MAX_TROUBLES
    assert ("task", "lab/retried") in guard.troubled
