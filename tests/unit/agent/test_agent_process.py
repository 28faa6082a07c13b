import asyncio
from functools import partial

from aiohttp import web
from aiohttp.test_utils import TestServer

from perllm.agent.config import AgentConfig
from perllm.agent.process import count_connections
from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials
from perllm.cluster.writes import LANE_WIDTH, WIDTH, Write
from unit.cluster.queues import make_writes


def test_each_watch_has_a_connection_next_to_those_of_all_writes() -> None:
    listed = tuple(f"team-{number}" for number in range(200))
    assert count_connections(AgentConfig(namespaces=listed, server_namespaces=listed)) > WIDTH + 2 * len(listed)


async def test_the_lease_is_renewed_while_the_reports_of_two_namespaces_hang() -> None:
    asked = asyncio.Semaphore(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/status"):
            asked.release()
            await asyncio.Event().wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_patch("/{tail:.*}", answer)
    async with TestServer(app) as server:
        credentials = Credentials(str(server.make_url("")).rstrip("/"), None, None, None, lambda: None)
        async with Client(credentials, max_connections=count_connections(AgentConfig())) as client:
            writes = make_writes()
            running = asyncio.create_task(writes.run())
            for number in range(2 * LANE_WIDTH):
                namespace, task = f"team-{number % 2}", f"t-{number}"
                report = partial(client.patch, names.task_status_path(namespace, task), {})
                writes.put(Write("run", f"{namespace}/{task}", report))
            for _ in range(2 * LANE_WIDTH):
                await asked.acquire()

            await asyncio.wait_for(client.patch(names.lease_path("perllm-system", "n"), {}), 2)
            running.cancel()
