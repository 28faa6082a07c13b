"""The queue of writes: nobody's refusal, webhook or flood delays another's write, and nothing wanted is lost."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest

from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError
from perllm.cluster.outages import Outages
from perllm.cluster.writes import LANE_WIDTH, Write, WriteQueue
from perllm.guard import Guard

pytestmark = pytest.mark.looptime

FORBIDDEN = ApiError(403, "Forbidden", "exceeded quota")


class Server:
    """Takes a millisecond for a write, or fails it."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.at_s: dict[str, float] = {}
        self.tries: Counter[str] = Counter()
        self.refused: dict[str, Exception] = {}
        self.down: ApiError | None = None
        self.slow_s: dict[str, float] = {}

    def send(self, name: str) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            self.tries[name] += 1
            await asyncio.sleep(self.slow_s.get(name.partition("/")[0], 0.001))
            error = self.down or self.refused.get(name) or self.refused.get(name.partition("/")[0])
            if error is not None:
                raise error
            self.written.append(name)
            self.at_s[name] = asyncio.get_running_loop().time()

        return send


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def faults() -> Counter[str]:
    return Counter()


@pytest.fixture
async def queue(faults: Counter[str]) -> AsyncIterator[WriteQueue]:
    guard = Guard(lambda kind: faults.update([kind]), Random(0))
    queue = WriteQueue(guard, Outages(asyncio.get_running_loop().time), Random(0))
    running = asyncio.create_task(queue.run())
    yield queue
    running.cancel()


def status(server: Server, name: str, kind: str = "status") -> Write:
    return Write(kind, name, server.send(name))


async def test_the_newest_write_of_an_object_takes_the_place_of_one_that_waits(
    queue: WriteQueue, server: Server
) -> None:
    async def fail() -> None:
        raise AssertionError("this one is out of date")

    queue.put(Write("status", "lab/t", fail))
    queue.put(status(server, "lab/t"))
    await queue.drain()
    assert server.written == ["lab/t"]


async def test_what_was_denied_until_its_object_was_gone_is_told_again_the_next_time(
    queue: WriteQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refused["sick"] = FORBIDDEN
    for name in ("sick/a", "sick/b"):
        queue.put(status(server, name))
        await asyncio.sleep(5)
        queue.drop("status", name)
        await asyncio.sleep(5)
    assert [record.levelno for record in caplog.records] == 2 * [logging.WARNING, logging.INFO]


async def test_a_write_asked_for_while_one_is_under_way_follows_it(queue: WriteQueue, server: Server) -> None:
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(0.0005)
    queue.put(status(server, "lab/t"))
    await queue.drain()
    assert server.written == ["lab/t"] * 2


async def test_refused_objects_hold_no_place(queue: WriteQueue, server: Server) -> None:
    server.refused["sick"] = FORBIDDEN
    for number in range(200):
        queue.put(status(server, f"sick/{number}"))
    await asyncio.sleep(5)
    queue.put(status(server, "well/t"))
    await asyncio.sleep(0.1)
    assert server.written == ["well/t"]


async def test_a_refused_object_is_tried_again_until_it_is_taken(queue: WriteQueue, server: Server) -> None:
    server.refused["lab/t"] = FORBIDDEN
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(3600)
    assert 60 < server.tries["lab/t"] < 160  # a minute at most between two tries, half of it at least
    server.refused.clear()
    await queue.drain()
    assert server.written == ["lab/t"]


async def test_a_day_of_refusal_changes_nothing(queue: WriteQueue, server: Server) -> None:
    server.refused["lab/t"] = FORBIDDEN
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(86400)
    assert server.tries["lab/t"] > 1024
    server.refused.clear()
    await asyncio.sleep(60)
    assert server.written == ["lab/t"]


async def test_one_line_tells_of_all_refusals_of_a_namespace_and_one_of_their_end(
    queue: WriteQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refused["sick"] = FORBIDDEN
    for number in range(50):
        queue.put(status(server, f"sick/{number}"))
    await asyncio.sleep(300)
    assert len(caplog.records) == 1
    assert "writing status in namespace sick" in caplog.text
    assert "exceeded quota" in caplog.text
    server.refused.clear()
    await queue.drain()
    assert len(caplog.records) == 2


async def test_a_server_that_is_down_is_probed_by_one_write_and_all_follow_when_it_answers(
    queue: WriteQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.down = ApiUnreachableError("connection refused")
    for number in range(500):
        queue.put(status(server, f"lab-{number % 7}/{number}"))
    await asyncio.sleep(600)
    assert server.tries.total() < 350  # one probe every 2.5 to 5 s, and those under way at first
    server.down = None
    await asyncio.sleep(6)
    assert len(server.written) == 500
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_a_namespace_whose_webhook_hangs_delays_itself(queue: WriteQueue, server: Server) -> None:
    server.slow_s["slow"] = 30.0
    server.refused["slow"] = ApiTimeoutError("context deadline exceeded")
    for number in range(300):
        queue.put(status(server, f"slow/{number}"))
    await asyncio.sleep(1)
    queue.put(status(server, "quick/t"))
    await asyncio.sleep(0.1)
    assert server.written == ["quick/t"]


async def test_kinds_take_turns(queue: WriteQueue, server: Server) -> None:
    for number in range(1000):
        queue.put(status(server, f"lab/e{number}", kind="event"))
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(0.01)
    assert "lab/t" in server.written


async def test_a_write_that_breaks_is_told_and_tried_again(
    queue: WriteQueue, server: Server, faults: Counter[str]
) -> None:
    server.refused["lab/t"] = TypeError("Recursion limit reached")
    queue.put(status(server, "lab/t"))
    queue.put(status(server, "lab/u"))
    await asyncio.sleep(10)
    assert server.written == ["lab/u"]
    assert faults["status"] >= 2
    server.refused.clear()
    await queue.drain()
    assert server.written == ["lab/u", "lab/t"]


async def test_a_dropped_write_is_not_made_and_not_waited_for(queue: WriteQueue, server: Server) -> None:
    server.refused["lab/t"] = FORBIDDEN
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(10)
    tries = server.tries["lab/t"]
    queue.drop("status", "lab/t")
    await queue.drain()
    await asyncio.sleep(300)
    assert server.tries["lab/t"] == tries
    assert len(queue) == 0


async def test_a_write_that_is_waited_for_is_made_once_and_its_refusal_comes_back(
    queue: WriteQueue, server: Server
) -> None:
    server.refused["lab/p"] = FORBIDDEN
    with pytest.raises(ApiError, match="exceeded quota"):
        await queue.once(status(server, "lab/p", kind="pod"))
    await queue.once(status(server, "lab/q", kind="pod"))
    await asyncio.sleep(100)
    assert (server.tries["lab/p"], server.written, len(queue)) == (1, ["lab/q"], 0)


async def test_a_write_that_is_waited_for_waits_for_a_server_that_is_down_and_is_sent_once_then(
    queue: WriteQueue, server: Server
) -> None:
    server.down = ApiUnreachableError("connection refused")
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(1)
    waiting = asyncio.create_task(queue.once(status(server, "lab/p", kind="pod")))
    await asyncio.sleep(0.01)
    server.down = None
    await waiting
    assert server.tries["lab/p"] == 1


async def test_an_object_that_stays_refused_is_told_once_though_others_of_its_namespace_are_taken(
    queue: WriteQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refused["lab/sick"] = FORBIDDEN
    queue.put(status(server, "lab/sick"))
    for number in range(100):
        queue.put(status(server, f"lab/{number}"))
        await asyncio.sleep(60)
    assert len(caplog.records) == 1
    server.refused.clear()
    await queue.drain()
    assert len(caplog.records) == 2


async def test_a_refusal_that_comes_back_is_told_by_whoever_asked(
    queue: WriteQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.refused["lab/t-1"] = FORBIDDEN
    with pytest.raises(ApiError):
        await queue.once(Write("pod", "lab/t-1", server.send("lab/t-1")))
    assert caplog.records == []


async def test_what_was_under_way_is_sent_again_when_the_queue_is_started_again(server: Server) -> None:
    queue = WriteQueue(Guard(lambda _: None, Random(0)), Outages(asyncio.get_running_loop().time), Random(0))
    server.slow_s["lab"] = 10.0
    queue.put(status(server, "lab/t"))
    for length_s in (1.0, 30.0):
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(length_s)
        running.cancel()
    assert (server.tries["lab/t"], server.written, len(queue)) == (2, ["lab/t"], 0)


async def test_a_write_that_is_waited_for_ends_when_a_newer_one_takes_its_place(
    queue: WriteQueue, server: Server
) -> None:
    server.down = ApiUnreachableError("connection refused")
    queue.put(status(server, "lab/t"))
    await asyncio.sleep(1)
    old = asyncio.create_task(queue.once(status(server, "lab/p", kind="pod")))
    await asyncio.sleep(0)
    new = asyncio.create_task(queue.once(status(server, "lab/p", kind="pod")))
    with pytest.raises(ApiError, match="newer"):
        await asyncio.wait_for(old, 1)
    server.down = None
    await new
    assert server.tries["lab/p"] == 1


async def test_an_object_never_has_two_writes_under_way(queue: WriteQueue) -> None:
    under_way: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def slow(name: str, seconds: float) -> Write:
        async def send() -> None:
            under_way[name] += 1
            most[name] = max(most[name], under_way[name])
            await asyncio.sleep(seconds)
            under_way[name] -= 1

        return Write("status", name, send)

    for number in range(LANE_WIDTH - 1):
        queue.put(slow(f"lab/{number}", 1.0))
    queue.put(slow("lab/t", 2.0))
    queue.drop("status", "lab/t")
    queue.put(slow("lab/t", 2.0))
    await asyncio.sleep(0.5)
    queue.put(slow("lab/t", 2.0))
    await queue.drain()
    assert most["lab/t"] == 1
