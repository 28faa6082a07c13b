"""How late the event loop is: for as long as one piece of work holds it, nothing else is done or answered."""

import asyncio
from collections.abc import Callable

INTERVAL_S = 0.05


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Call `observe` repeatedly with the seconds by which the loop was late, until cancelled.

    Work that holds the loop longer than `INTERVAL_S` is always seen; shorter work in proportion to its length.
    """
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        observe(max(loop.time() - due_s, 0.0))
