import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import aiohttp
import pytest
from aiohttp import web

from perllm.agent.addresses import ServerAddress
from perllm.agent.servers import ModelServers
from perllm.api.node_server import MAX_SERVERS
from perllm.completions.endpoint import Endpoint
from unit.agent.engines import FakeEngine, page
from unit.cluster.queues import make_guard


class Changes:
    """Counts changes, and lets a test wait for one that makes something true."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.servers: ModelServers | None = None

    def note(self) -> None:
        self._event.set()

    async def wait_for_ready(self, count: int) -> None:
        assert self.servers is not None
        async with asyncio.timeout(2):
            while sum(one.ready for one in self.servers.states) != count:
                self._event.clear()
                await self._event.wait()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def servers(changes: Changes) -> AsyncIterator[ModelServers]:
    async with aiohttp.ClientSession() as session:
        servers = changes.servers = ModelServers(
            session,
            lambda address: Endpoint(session, address.url, now=time.monotonic, unix_now=time.time),
            own=Counter(),
            on_change=changes.note,
            interval_s=60.0,
            now=time.monotonic,
            guard=make_guard(),
            rng=Random(0),
        )
        running = asyncio.create_task(servers.run())
        yield servers
        running.cancel()


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_server_that_hangs_delays_no_other(servers: ModelServers, changes: Changes) -> None:
    async with FakeEngine.serve() as good, FakeEngine.serve() as bad:
        bad.pages["/v1/models"] = never

        servers.adopt([ServerAddress(bad.url), ServerAddress(good.url)])

        await changes.wait_for_ready(1)
        assert [one.address.url for one in servers.find("m")] == [good.url]
        assert not servers.synced.is_set()
        servers.adopt([])  # which closes the connection that hangs


async def test_a_server_is_looked_at_at_once_when_one_of_its_requests_was_not_accepted(
    servers: ModelServers, changes: Changes
) -> None:
    async with FakeEngine.serve() as server:
        servers.adopt([ServerAddress(server.url)])
        await changes.wait_for_ready(1)
        server.pages["/health"] = page("", 503)

        servers.find("m")[0].hurry.set()

        await changes.wait_for_ready(0)
        assert servers.find("m") == []


async def test_a_server_that_is_not_ready_is_down_if_it_is_known_to_be_there(
    servers: ModelServers, changes: Changes
) -> None:
    """One that is configured for all nodes need not be on this one."""
    async with FakeEngine.serve() as server, FakeEngine.serve() as in_pod, FakeEngine.serve() as elsewhere:
        in_pod.pages["/health"] = elsewhere.pages["/health"] = page("", 503)
        servers.adopt(
            [ServerAddress(server.url), ServerAddress(in_pod.url, is_in_pod=True), ServerAddress(elsewhere.url)]
        )
        await servers.synced.wait()
        await changes.wait_for_ready(1)
        assert servers.down == 1

        server.pages["/health"] = page("", 503)
        servers.find("m")[0].hurry.set()

        await changes.wait_for_ready(0)
        assert servers.down == 2


async def test_a_server_that_is_no_longer_wanted_is_forgotten(servers: ModelServers, changes: Changes) -> None:
    async with FakeEngine.serve() as one, FakeEngine.serve() as other:
        servers.adopt([ServerAddress(one.url), ServerAddress(other.url)])
        await changes.wait_for_ready(2)

        servers.adopt([ServerAddress(other.url)])

        assert [state.url for state in servers.states] == [other.url]
        assert len(servers.find("m")) == 1


async def test_of_too_many_servers_the_first_are_known(servers: ModelServers) -> None:
    servers.adopt([ServerAddress(f"http://127.0.0.1:1/{number}/v1") for number in range(MAX_SERVERS + 5)])
    await asyncio.wait_for(servers.synced.wait(), 2)
    assert len(servers.states) == MAX_SERVERS


async def test_a_server_that_is_configured_and_found_as_well_is_one(servers: ModelServers, changes: Changes) -> None:
    async with FakeEngine.serve() as server:
        servers.adopt([ServerAddress(server.url, slots=2), ServerAddress(server.url)])
        await changes.wait_for_ready(1)
        assert [state.slots for state in servers.states] == [2]


async def test_a_server_that_leaves_and_comes_back_at_once_is_looked_at_again(
    servers: ModelServers, changes: Changes
) -> None:
    async with FakeEngine.serve() as server:
        servers.adopt([ServerAddress(server.url)])
        await changes.wait_for_ready(1)

        servers.adopt([])  # as a pod on the network of its host, of which the watch shows the end and the next at once
        servers.adopt([ServerAddress(server.url)])

        await changes.wait_for_ready(1)
