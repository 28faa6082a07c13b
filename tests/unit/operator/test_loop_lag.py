import asyncio
import time

from perllm.loop_lag import INTERVAL_S, watch_loop

HELD_S = 0.3


async def test_the_lag_of_a_loop_that_is_held_is_seen() -> None:
    lags_s: list[float] = []
    watching = asyncio.create_task(watch_loop(lags_s.append))
    await asyncio.sleep(INTERVAL_S / 2)
    time.sleep(HELD_S)  # noqa: ASYNC251 - what the test is about
    await asyncio.sleep(2 * INTERVAL_S)
    watching.cancel()
    assert max(lags_s) >= HELD_S - INTERVAL_S
    assert len(lags_s) >= 2
