import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from perllm.agent.publication import Publication, build_status
from perllm.api.node_server import NodeModelServer
from perllm.cluster.client import ApiUnreachableError, Client
from unit.agent.tasks import CREATED_S
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

pytestmark = pytest.mark.looptime

PATH = "/apis/perllm.io/v1alpha1/llmnodeservers/n"
READY = NodeModelServer(url="http://a/v1", ready=True, models=("m",), running=1, waiting=0)
BROKEN = NodeModelServer(url="http://b/v1", problem="gone", models=("x",), foreign=0)


class Setting:
    """A publication, and what the servers are."""

    def __init__(self) -> None:
        self.api = FakeApiServer()
        self.api.store("/api/v1/nodes/n", metadata={"uid": "uid-of-n"})
        self.states: list[NodeModelServer] = []
        self.writes = make_writes()
        now = asyncio.get_running_loop().time
        self._publication = Publication(
            cast(Client, self.api),
            self.writes,
            "n",
            "1.2.3",
            lambda: tuple(self.states),
            now=now,
            unix_now=lambda: CREATED_S + now(),
        )

    async def show(self, *states: NodeModelServer) -> None:
        self.states = list(states)
        self._publication.note_change()
        await self.writes.drain()

    @property
    def item(self) -> dict[str, Any]:
        item = self.api.read(PATH)
        assert item is not None
        return item

    @property
    def written(self) -> int:
        return len([path for path, _ in self.api.calls_of("PATCH") if path == f"{PATH}/status"])


@asynccontextmanager
async def publish() -> AsyncIterator[Setting]:
    setting = Setting()
    running = asyncio.create_task(setting.writes.run())
    await setting.show(READY, BROKEN)
    yield setting
    running.cancel()


async def test_the_object_is_created_for_the_node_and_says_what_it_serves() -> None:
    async with publish() as setting:
        assert setting.item["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "uid-of-n"}
        ]
        assert setting.item["status"] == {
            "agentVersion": "1.2.3",
            "updatedTime": "2026-01-01T00:00:00Z",
            "ready": "1/2",
            "models": ["m"],
            "running": 1,
            "foreign": 0,
            "servers": [READY.to_object(), BROKEN.to_object()],
        }


async def test_readiness_and_models_are_written_at_once() -> None:
    async with publish() as setting:
        before = setting.written
        await setting.show(READY.model_copy(update={"models": ("m", "n")}), BROKEN)
        await setting.show(READY.model_copy(update={"ready": False, "problem": "gone"}), BROKEN)
        assert setting.written == before + 2
        assert setting.item["status"]["models"] == []


@pytest.mark.parametrize(("change", "pause_s"), [({"foreign": 3}, 2.0), ({"running": 9}, 10.0), ({"waiting": 9}, 10.0)])
async def test_changes_of_load_wait_and_the_newest_is_written(change: dict[str, int], pause_s: float) -> None:
    async with publish() as setting:
        before = setting.written
        await setting.show(READY.model_copy(update=dict.fromkeys(change, 1)), BROKEN)
        await setting.show(READY.model_copy(update=change), BROKEN)
        await asyncio.sleep(pause_s - 0.1)
        assert setting.written == before
        await asyncio.sleep(0.2)
        assert setting.written == before + 1
        assert setting.item["status"]["servers"][0].items() >= change.items()


async def test_a_load_that_is_what_it_was_is_not_written() -> None:
    async with publish() as setting:
        before = setting.written
        await setting.show(READY.model_copy(update={"foreign": 3}), BROKEN)
        await setting.show(READY, BROKEN)
        await asyncio.sleep(60)
        assert setting.written == before


async def test_an_object_that_was_deleted_is_there_again_within_minutes() -> None:
    async with publish() as setting:
        setting.api.remove(PATH)
        await asyncio.sleep(301)
        assert setting.item["status"]["ready"] == "1/2"


async def test_an_api_server_that_was_away_gets_the_newest_state() -> None:
    async with publish() as setting:
        setting.api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 3)
        await setting.show(BROKEN)
        assert setting.item["status"]["ready"] == "0/1"


def test_a_model_of_several_servers_is_listed_once_and_all_traffic_adds_up() -> None:
    busy = READY.model_copy(update={"url": "http://c/v1", "running": 5, "foreign": 2})
    status = build_status([READY, busy], "1", CREATED_S)
    assert (status.ready, status.models, status.running, status.foreign) == ("2/2", ("m",), 6, 2)
