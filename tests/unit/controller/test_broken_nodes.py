"""Nodes that refuse or fail all pods, next to healthy nodes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.node import Node
from unit.controller.one_node_cluster import PODS, Cluster
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK

pytestmark = pytest.mark.looptime

TICK_S = 0.1
RUN_S = 3.0


class World:
    """A cluster whose nodes work, except that a node named refuses or fails does what its name says.

    Attributes:
        bound: on which nodes the pods of a task were, in order, by the name of the task.
    """

    def __init__(self, *nodes: Node) -> None:
        self.cluster = Cluster()
        self.bound: dict[str, list[str]] = {}
        self.cluster.scheduler.remove_node("n")
        for node in nodes:
            self.cluster.scheduler.put_node(node, UPLINK)
        self._running: set[asyncio.Task[None]] = set()
        self._turning: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.cluster.start()
        self._turning = asyncio.create_task(self._turn())

    def stop(self) -> None:
        self.cluster.stop()
        for task in (self._turning, *self._running):
            if task is not None:
                task.cancel()

    def create(self, name: str, **fields: Any) -> None:
        self.cluster.create(name, **fields)

    def phases(self) -> Counter[str]:
        return Counter(self.cluster.status(name)["phase"] for name in self.bound)

    async def _turn(self) -> None:
        """Do what kube-scheduler, the kubelets and the upkeep of nodes do."""
        cluster, seen = self.cluster, set()
        while True:
            cluster.control.node_health.tend()
            for pod in (await cluster.api.get(PODS))["items"]:
                name = pod["metadata"]["name"]
                if name not in seen:
                    node = self._bind(name, pod)
                    if node is not None:
                        seen.add(name)
                        running = asyncio.create_task(self._run(name, node))
                        self._running.add(running)
            await asyncio.sleep(TICK_S)

    def _bind(self, name: str, pod: dict[str, Any]) -> str | None:
        cluster = self.cluster
        cluster.pod(name, status={"phase": "Pending"})
        request = cluster.controller.request_of(pod)
        assert request is not None
        placement = cluster.scheduler.decide(request, list(cluster.parts.fleet.nodes))
        if placement.node is None:
            return None
        decision = cluster.scheduler.settle(request.task_id, placement.node)
        assert decision is not None
        record = decision.to_record()
        annotations = {names.DECISION_ANNOTATION: record}
        cluster.pod(name, metadata={"annotations": annotations}, spec={"nodeName": placement.node})
        self.bound.setdefault(name.rpartition("-")[0], []).append(placement.node)
        return placement.node

    async def _run(self, name: str, node: str) -> None:
        await asyncio.sleep(TICK_S)
        if node == "refuses":
            self.cluster.pod(name, status={"phase": "Failed", "reason": "UnexpectedAdmissionError"})
            return
        self.cluster.pod(name, status={"phase": "Running"})
        await asyncio.sleep(RUN_S)
        self.cluster.finish(name, exit_code=1 if node == "fails" else 0)


@pytest.fixture
async def worlds() -> AsyncIterator[list[World]]:
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        world.stop()


async def test_a_node_that_refuses_everything_delays_tasks_by_seconds(worlds: list[World]) -> None:
    world = World(make_node("refuses", slots=8, gpu_type="H100"), make_node("a", slots=8), make_node("b", slots=8))
    worlds.append(world)
    world.start()
    for number in range(20):
        world.create(f"t{number}", deadline="2m")
        await asyncio.sleep(1)
    await asyncio.sleep(RUN_S + 1)
    assert world.phases() == {"Succeeded": 20}
    there = Counter(node for nodes in world.bound.values() for node in nodes)
    assert 3 <= there["refuses"] <= 5
    assert all(nodes.count("refuses") <= 1 for nodes in world.bound.values())


async def test_the_only_node_refuses_and_its_tasks_wait_for_it_to_be_repaired(worlds: list[World]) -> None:
    world = World(make_node("refuses", slots=8))
    worlds.append(world)
    world.start()
    for number in range(20):
        world.create(f"t{number}", deadline="1h")
    await asyncio.sleep(30)
    assert world.phases() == {"Pending": len(world.bound)}
    assert sum(map(len, world.bound.values())) < 30
    messages = {world.cluster.status(f"t{number}")["message"] for number in range(20)}
    assert any("refusals or failures there: refuses (UnexpectedAdmissionError)" in message for message in messages)


async def test_a_retry_goes_elsewhere_and_a_node_that_fails_everything_is_left_alone(worlds: list[World]) -> None:
    world = World(make_node("fails", slots=8, gpu_type="H100"), make_node("a", slots=8), make_node("b", slots=8))
    worlds.append(world)
    world.start()
    for number in range(30):
        world.create(f"t{number}", deadline="2m", retries=1)
        await asyncio.sleep(1)
    await asyncio.sleep(2 * RUN_S + 2)
    assert world.phases() == {"Succeeded": 30}
    there = Counter(node for nodes in world.bound.values() for node in nodes)
    assert there["fails"] < 15
    assert all(nodes.count("fails") <= 1 for nodes in world.bound.values())


async def test_tasks_of_two_gpus_are_given_pods_as_there_is_room_and_priority_goes_first(worlds: list[World]) -> None:
    world = World(make_node("a", slots=4), make_node("b", slots=6))
    worlds.append(world)
    world.start()
    two = {"spec": {"containers": [{"name": "llm", "image": "llm", "resources": {"limits": {"nvidia.com/gpu": 2}}}]}}
    for number in range(10):
        world.create(f"t{number}", template=two)
    await asyncio.sleep(1)
    assert len(world.cluster.pods) == len(world.bound) == 5
    world.create("urgent", template=two, priority=900)
    await asyncio.sleep(RUN_S)
    assert [*world.bound][5] == "urgent"
