"""The parts of the body of an HTTP response, in the order in which they come."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp


async def read_parts(content: aiohttp.StreamReader, silence_s: float | None = None) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they come.

    After a malformed chunk aiohttp neither ends the body nor keeps to its own timeout, hence `silence_s`.

    Raises:
        TimeoutError: nothing came for `silence_s`, in seconds.
    """
    while True:
        try:
            async with asyncio.timeout(silence_s):
                part = await content.readany()
        except TimeoutError as error:
            if silence_s is None:
                raise
            raise TimeoutError(f"nothing came for {silence_s:g} s") from error
        if not part:
            return
        yield part
