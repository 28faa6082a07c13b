"""Servers and background work whose lifetime is a ``with`` block, however it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

from aiohttp import web

from perllm.backoff import Backoff
from perllm.guard import Guard

SHUTDOWN_TIMEOUT_S = 2.0
RESTART = Backoff(first_s=0.2, limit_s=5.0)
LASTING_S = 60.0
"""A run that has lasted this long resets the count of failures."""


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Serve an application over HTTP within the block; requests that are still open soon after its end are aborted."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def cancelled_at_exit() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that is cancelled, not awaited, at the end; a task that fails ends the whole group.

    A single error is raised as itself, not in a group.
    """

    class _EndError(Exception):
        pass

    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _EndError
    except BaseExceptionGroup as errors:
        others = errors.split(_EndError)[1]
        if others is not None:
            raise (others.exceptions[0] if len(others.exceptions) == 1 else others) from None


async def keep_running(name: str, work: Callable[[], Awaitable[None]], guard: Guard, rng: Random) -> None:
    """Run a part of the process that should never end; if it fails, that is logged and the part is restarted."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        begun_s = loop.time()
        try:
            await work()
            raise RuntimeError("it ended, which it never should")
        except Exception as error:
            if loop.time() - begun_s > LASTING_S:
                failures = 0
                guard.clear("part", name)
            guard.note("part", name, error)
        failures += 1
        await asyncio.sleep(RESTART.pause_s(failures, rng))
