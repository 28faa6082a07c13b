"""Work and servers that last as long as a block, however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

SHUTDOWN_TIMEOUT_S = 2.0


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Serve an application over HTTP within the block; answers that are not ready soon after it are broken off."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def cancelled_at_exit() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that is cancelled, not awaited, at the end; a task that breaks ends the whole group.

    An error that is the only one comes out as itself.
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
