import asyncio
from contextlib import suppress
from math import inf

import pytest

from perllm.energy.attribution import Window
from perllm.energy.foreign import ForeignLoad


def test_requests_are_windows_from_one_change_to_the_next() -> None:
    load = ForeignLoad(900.0)
    for now_s, requests in ((10.0, 0.0), (20.0, 2.0), (25.0, 2.0), (30.0, 1.0), (40.0, 0.0), (50.0, 3.0)):
        load.see("n", requests, now_s)

    assert [(one.start_s, one.end_s, one.weight) for one in load.list_windows("n", 0.5)] == [
        (20.0, 30.0, 1.0),
        (30.0, 40.0, 0.5),
        (50.0, inf, 1.5),
    ]
    assert load.list_windows("other", 0.5) == []


def test_only_the_last_minutes_are_kept() -> None:
    load = ForeignLoad(100.0)
    for step in range(1000):
        load.see("n", float(step % 2 + 1), float(step))

    windows = load.list_windows("n", 1.0)
    assert windows[0].start_s < 999.0 - 100.0
    assert len(windows) <= 102


@pytest.mark.looptime
async def test_what_others_know_is_followed_and_nodes_that_are_gone_are_forgotten() -> None:
    load, known, now_s = ForeignLoad(900.0), {"n": 1.0}, asyncio.get_running_loop().time
    following = asyncio.create_task(load.follow(lambda: known, now_s))
    await asyncio.sleep(2.5)
    known["n"] = 0.0
    await asyncio.sleep(1.0)
    assert load.list_windows("n", 1.0) == [Window("foreign 0.0", 0.0, 3.0)]

    known.clear()
    await asyncio.sleep(1.0)
    assert load.list_windows("n", 1.0) == []
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
