import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from perllm.controller import handover
from perllm.controller.handover import Handover


def give(work: Callable[[], None]) -> threading.Thread:
    """Do the giver's part in a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


async def test_work_is_done_in_order_and_leaves_the_loop_to_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "SLICE_S", 1e-9)
    given, done = Handover(asyncio.get_running_loop()), list[int]()

    def put_all() -> None:
        for number in range(100):
            given.put(partial(done.append, number))

    give(put_all).join()
    progress = set()
    while len(done) < 100:
        progress.add(len(done))
        await asyncio.sleep(0)
    assert done == list(range(100))
    assert len(progress) > 90


async def test_work_that_fails_keeps_nothing_else_from_being_done() -> None:
    given, done = Handover(asyncio.get_running_loop()), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    given.put(partial(int, "no number"))
    given.put(done.set)
    await asyncio.wait_for(done.wait(), 1.0)


async def test_the_giver_waits_while_too_much_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MAX_BACKLOG", 3)
    given, done = Handover(asyncio.get_running_loop()), list[int]()

    async def put_all() -> None:
        for number in range(20):
            await given.wait_for_room()
            given.put(partial(done.append, number))

    giver = give(lambda: asyncio.run(put_all()))
    giver.join(0.2)  # holds up this loop, which does nothing of it meanwhile
    assert giver.is_alive()
    await asyncio.to_thread(giver.join)
    await asyncio.sleep(0)
    assert done == list(range(20))
