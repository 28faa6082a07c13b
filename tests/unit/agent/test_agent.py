"""The agent as a whole, between an API server and a model server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from perllm.agent.agent import Agent
from perllm.agent.config import AgentConfig, ModelServerSettings
from perllm.cluster.client import ApiUnreachableError, Client
from unit.agent.engines import FakeEngine
from unit.agent.tasks import CREATED, PATH, task
from unit.cluster.fake_api import FakeApiServer
from unit.completions.model_server import ANSWER, stream

NODE_SERVER = "/apis/perllm.io/v1alpha1/llmnodeservers/n"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/perllm-system/leases/perllm-agent-n"


@pytest.fixture
def api() -> FakeApiServer:
    api = FakeApiServer()
    api.store("/api/v1/nodes/n", metadata={"uid": "uid-of-n"})
    return api


@pytest.fixture
async def server() -> AsyncIterator[FakeEngine]:
    async with FakeEngine.serve() as server:
        yield server


@asynccontextmanager
async def run_agent(
    api: FakeApiServer, server: FakeEngine, registry: CollectorRegistry | None = None, **changes: Any
) -> AsyncIterator[Agent]:
    config = AgentConfig(
        servers=(ModelServerSettings(url=server.url, slots=4),), namespaces=("team",), probe_interval_s=0.2, **changes
    )
    agent = Agent(cast(Client, api), "n", config, registry=registry, rng=Random(0))
    running = asyncio.create_task(agent.run())
    yield agent
    agent.stop()
    await asyncio.wait_for(running, 5)


async def wait_for(api: FakeApiServer, path: str, field: str) -> Any:
    """Return a field of the status once it is there."""
    async with asyncio.timeout(5):
        while True:
            value = ((api.read(path) or {}).get("status") or {}).get(field)
            if value is not None:
                return value
            await asyncio.sleep(0.01)


async def test_a_task_that_is_placed_on_the_node_is_answered(api: FakeApiServer, server: FakeEngine) -> None:
    async with run_agent(api, server):
        api.store(PATH, **task())
        result = await wait_for(api, PATH, "result")
        assert await wait_for(api, NODE_SERVER, "models") == ["m"]
        assert (api.read(LEASE) or {})["spec"]["holderIdentity"] == "n"

    run = (api.read(PATH) or {})["status"]["run"]
    assert (result, run["end"], run["attempt"], run["tokens"]) == ({"text": "Hello there"}, "Answered", 1, 7)
    assert len(server.requests) == 1


async def test_an_agent_that_is_started_again_makes_requests_without_a_run_and_no_others(
    api: FakeApiServer, server: FakeEngine
) -> None:
    api.store(PATH, **task(run={"attempt": 1}))
    api.store(f"{PATH}2", **task(name="t2", prompt="again"))

    async with run_agent(api, server):
        await wait_for(api, f"{PATH}2", "run")

    assert [request["messages"][0]["content"] for request in server.requests] == ["again"]


async def test_an_api_server_that_is_away_gets_the_run_later_and_once(api: FakeApiServer, server: FakeEngine) -> None:
    async def cut_off(request: web.Request) -> None:
        api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 2)

    server.script = [stream(ANSWER, then=cut_off)]
    async with run_agent(api, server):
        api.store(PATH, **task())
        await wait_for(api, PATH, "run")

    assert len(server.requests) == 1
    reports = [body for path, body in api.calls_of("PATCH") if path == f"{PATH}/status"]
    assert len(reports) > 1
    assert all(body == reports[0] for body in reports)


async def test_what_was_published_stands_until_every_server_was_looked_at(
    api: FakeApiServer, server: FakeEngine
) -> None:
    looked = asyncio.Event()

    async def answer_late(request: web.Request) -> web.StreamResponse:
        looked.set()
        await asyncio.sleep(0.2)
        return web.Response()

    server.pages["/health"] = answer_late
    async with run_agent(api, server):
        await asyncio.wait_for(looked.wait(), 2)
        assert api.read(NODE_SERVER) is None
        await wait_for(api, NODE_SERVER, "models")
        calls = api.calls_of("PATCH")

    written = [body[0]["value"]["ready"] for path, body in calls if path == f"{NODE_SERVER}/status"]
    assert set(written) == {"1/1"}


async def test_a_deadline_holds_by_the_clock_of_the_cluster(api: FakeApiServer, server: FakeEngine) -> None:
    api.store(LEASE, metadata={"managedFields": [{"manager": "perllm-agent", "time": CREATED}]})
    api.store(PATH, **task(onDeadlineMissed="Terminate"))

    async with run_agent(api, server):
        assert (await wait_for(api, PATH, "run"))["end"] == "Answered"


async def test_a_deleted_task_closes_its_connection(api: FakeApiServer, server: FakeEngine) -> None:
    closed = asyncio.Event()

    async def wait_for_the_end(request: web.Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    server.script = [stream(b": ping\n\n", then=wait_for_the_end)]
    async with run_agent(api, server):
        api.store(PATH, **task())
        await asyncio.wait_for(server.asked.wait(), 2)
        api.remove(PATH)
        await asyncio.wait_for(closed.wait(), 1)

    assert [path for path, _ in api.calls_of("PATCH") if path.startswith(PATH)] == []


async def test_a_stop_takes_the_node_out_of_service_and_waits_for_what_is_in_process(
    api: FakeApiServer, server: FakeEngine
) -> None:
    async def answer_late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        api.fail("PATCH", ApiUnreachableError("connection refused"))
        return await stream(ANSWER)(request)

    server.script = [answer_late]
    async with run_agent(api, server) as agent:
        api.store(PATH, **task())
        await asyncio.wait_for(server.asked.wait(), 2)
        agent.stop()
        await asyncio.sleep(0.05)
        assert (api.read(NODE_SERVER) or {})["status"]["ready"] == "0/1"
        assert (api.read(LEASE) or {})["spec"]["leaseDurationSeconds"] == 30

    assert (api.read(LEASE) or {})["spec"]["leaseDurationSeconds"] == 1
    assert (api.read(PATH) or {})["status"]["run"]["end"] == "Answered"


async def test_health_and_metrics_are_served(api: FakeApiServer, server: FakeEngine, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    places = {"health_host": "127.0.0.1", "health_port": unused_tcp_port}
    async with run_agent(api, server, CollectorRegistry(), **places), aiohttp.ClientSession() as session:
        api.store(PATH, **task())
        await wait_for(api, PATH, "run")
        pages = []
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(url + path) as response:
                pages.append((response.status, await response.text()))

    assert [status for status, _ in pages] == [200, 200, 200]
    assert 'perllm_agent_requests_total{end="Answered"} 1.0' in pages[2][1]
    assert 'perllm_agent_servers{ready="true"} 1.0' in pages[2][1]
    assert "perllm_agent_lease_valid 1.0" in pages[2][1]
