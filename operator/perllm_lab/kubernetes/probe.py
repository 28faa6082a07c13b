"""Readiness checks over HTTP."""

import aiohttp

_TIMEOUT_S = 2.0


async def answers(url: str) -> bool:
    """Return whether a GET of an address answers 200 in time."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
