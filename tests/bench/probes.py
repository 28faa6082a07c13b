"""How long a server takes to answer, asked at a steady pace whether or not it has answered before."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

EVERY_S = 0.02
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that is sent again and again; with a body it is a POST."""

    url: str
    body: bytes | None = None


@dataclass(slots=True)
class Answers:
    """Milliseconds until each request was answered, by the name of its probe."""

    spans_ms: dict[str, list[float]] = field(default_factory=dict)


@asynccontextmanager
async def probed(probes: Mapping[str, Probe]) -> AsyncIterator[Answers]:
    """Send the probes within the block; requests that fail are left out, as before a server is there."""
    answers = Answers({name: [] for name in probes})
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        sending = group.create_task(_send_all(session, probes, answers, group))
        try:
            yield answers
        finally:
            sending.cancel()


async def _send_all(
    session: aiohttp.ClientSession, probes: Mapping[str, Probe], answers: Answers, group: asyncio.TaskGroup
) -> None:
    start_s = time.monotonic()
    for number in itertools.count(1):
        for name, probe in probes.items():
            group.create_task(_ask(session, probe, answers.spans_ms[name]))
        await asyncio.sleep(max(start_s + number * EVERY_S - time.monotonic(), 0.0))


async def _ask(session: aiohttp.ClientSession, probe: Probe, spans_ms: list[float]) -> None:
    start_s = time.perf_counter()
    method = "GET" if probe.body is None else "POST"
    try:
        async with asyncio.timeout(PATIENCE_S), session.request(method, probe.url, data=probe.body) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        return
    spans_ms.append((time.perf_counter() - start_s) * 1e3)
