import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from perllm.api import names
from perllm.api.node_profile import CircuitState, CircuitStatus, ServingStatus
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.nodes.profile_parts import ProfileParts
from perllm.policy.table import CsUcbTable
from unit.cluster.fake_api import FakeApiServer
from unit.nodes.stores import Saved
from unit.placement.cluster_of import make_node

pytestmark = pytest.mark.looptime

NODES: dict[str, Node] = {"a": make_node("a")}
PROFILE = names.node_profile_path("a")
OPEN = CircuitStatus(
    state=CircuitState.OPEN, reason="GPU is lost", since=datetime(2026, 1, 1, tzinfo=UTC), namespaces=("lab",)
)
CLOSED = CircuitStatus(state=CircuitState.CLOSED, since=datetime(2026, 1, 2, tzinfo=UTC))


class Writing:
    """A writer at work."""

    def __init__(self) -> None:
        self.api = FakeApiServer()
        client: Any = self.api
        self.profiles = Saved(client, Learner(CsUcbTable()), NODES.get)
        writes = self.profiles.writes
        self.writer = ProfileParts(
            client, writes, node_of=NODES.get, create_profile=self.profiles.create, prefix=names.profile_prefix("")
        )
        self.running = asyncio.create_task(writes.run())

    async def show(self, node: str, status: CircuitStatus) -> dict[str, Any]:
        self.writer.put("circuit", node, status)
        await asyncio.sleep(0.1)
        return (self.api.read(names.node_profile_path(node)) or {}).get("status") or {}


@pytest.fixture
async def writing() -> AsyncIterator[Writing]:
    writing = Writing()
    yield writing
    writing.running.cancel()


async def test_a_node_that_has_learned_nothing_yet_gets_a_profile(writing: Writing) -> None:
    status = await writing.show("a", OPEN)
    assert (status["circuit"]["state"], status["circuit"]["namespaces"]) == ("open", ["lab"])
    profile = writing.api.read(PROFILE)
    assert profile is not None
    assert profile["metadata"]["ownerReferences"][0]["name"] == "a"
    assert (status["tier"], status["gpuType"]) == (NODES["a"].tier, NODES["a"].gpu_type)


async def test_what_was_learned_is_left_alone_and_nothing_old_is_left(writing: Writing) -> None:
    writing.api.store(PROFILE, status={"schemaVersion": 99, "outcomes": 7})
    await writing.show("a", OPEN)
    status = await writing.show("a", CLOSED)
    assert (status["schemaVersion"], status["outcomes"]) == (99, 7)
    assert status["circuit"] == {
        "state": "closed",
        "reason": "",
        "since": "2026-01-02T00:00:00Z",
        "models": [],
        "namespaces": [],
    }


async def test_a_node_that_is_gone_gets_none(writing: Writing) -> None:
    assert await writing.show("gone", OPEN) == {}
    assert writing.api.calls_of("POST") == []


async def test_a_node_that_has_left_the_fleet_is_not_shown_as_open_for_ever(writing: Writing) -> None:
    writing.api.store(names.node_profile_path("left"), status={"circuit": OPEN.to_object()})
    status = await writing.show("left", CLOSED)
    assert status["circuit"]["state"] == "closed"


async def test_what_an_earlier_process_left_open_is_found(writing: Writing) -> None:
    await writing.show("a", OPEN)
    await writing.profiles.load()
    assert writing.profiles.tripped == {"a"}


async def test_parts_do_not_touch_each_other_and_can_be_removed(writing: Writing) -> None:
    await writing.show("a", CLOSED)
    writing.writer.put("serving", "a", ServingStatus(ready="1/1", models=("m",), busy="3/8"))
    await asyncio.sleep(0.1)
    status = (writing.api.read(PROFILE) or {})["status"]
    assert status["serving"] == {"ready": "1/1", "models": ["m"], "busy": "3/8", "foreign": 0}
    writing.writer.put("serving", "a", None)
    await asyncio.sleep(0.1)
    assert set((writing.api.read(PROFILE) or {})["status"]) == {"circuit", "tier", "gpuType"}
