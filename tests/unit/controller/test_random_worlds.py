"""The controller in a cluster in which anything may happen: each task ends as it should, and then the writes end."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.times import parse_time_s
from unit.controller.random_world import DUE_S, World

pytestmark = pytest.mark.looptime

SEEDS, STEPS, ROUNDS, ROUND_S, QUIET_S = 12, 100, 100, 2.0, 70.0
SIGHT_S = 0.8
KUBELET_S = 2.0
"""What a pod that ends less than this before the deadline reports may be seen after it."""

Weights = dict[str, int]
OF_TASKS: Weights = {"edit_status": 4, "delete_task": 1, "suspend": 1, "resume": 3, "change_priority": 1}
OF_PODS: Weights = {
    "bind": 10,
    "start": 10,
    "refuse": 2,
    "fail": 3,
    "succeed": 4,
    "delete_pod": 2,
    "stop_pod": 5,
}
OF_THE_AGENT: Weights = {"Answered": 4, "Failed": 1, "Unavailable": 1}
OF_THE_REST: Weights = {
    "create": 9,
    "lose_agent": 1,
    "leave": 1,
    "come_back": 3,
    "go_down": 2,
    "cut_off": 2,
    "come_up": 5,
    "restart": 1,
}
WEIGHTS = OF_TASKS | OF_PODS | OF_THE_AGENT | OF_THE_REST


class Fate:
    """Lets things happen in a world.

    Args:
        world: the world.
        random: what happens.
    """

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self._random = random

    async def happen(self) -> None:
        """Let something happen, and some time pass."""
        world = self.world
        (event,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if event in OF_THE_AGENT:
            world.answer(event)
        elif event in OF_THE_REST:
            done = getattr(world, event)()
            if done is not None:
                await done
        else:
            item = world.choose_task() if event in OF_TASKS else world.choose_pod()
            if item is not None:
                getattr(world, event)(item)
        await self.pass_time(self._random.choice([0.05, 0.5, 3.0, 10.0]))

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in which the operator sees what happens unless it cannot."""
        while seconds > 0.0:
            await asyncio.sleep(min(SIGHT_S, seconds))
            seconds -= SIGHT_S
            self.world.tend()
            await self.world.see()

    async def go_well(self) -> None:
        """Let all be up, and all pods and requests do what they should."""
        world = self.world
        await world.come_up()
        world.come_back()
        for task in world.server.items(names.TASK_KIND):
            world.resume(task)
        for pod in world.server.items("Pod"):
            for event in (world.stop_pod, world.finish, world.start, world.bind):
                event(pod)
        world.answer("Answered")
        await self.pass_time(ROUND_S)


@pytest.fixture
async def running() -> AsyncIterator[list[World]]:
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        world.operator.stop()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_each_task_ends_as_its_pods_and_requests_did_and_then_nothing_is_written(
    running: list[World], seed: int
) -> None:
    random = Random(seed)
    world = World(random)
    running.append(world)
    await world.begin()
    fate = Fate(world, random)
    for _ in range(STEPS):
        await fate.happen()
    for _ in range(ROUNDS):
        await fate.go_well()
        if world.is_over:
            break
    await fate.pass_time(QUIET_S)
    check_end(world)
    calls = len(world.server.calls)
    await fate.pass_time(QUIET_S)
    assert world.server.calls[calls:] == []


def check_end(world: World) -> None:
    controller = world.operator.controller
    for task in world.server.items(names.TASK_KIND):
        name, status = task["metadata"]["name"], task["status"]
        tracked, stub = controller._tracking.get(f"lab/{name}"), controller._history.get(f"lab/{name}")
        wanted = tracked.status.to_object() if tracked else stub.status if stub else None
        assert status == wanted
        check_verdict(world, task)
    assert len(world.operator.parts.ledger) == 0
    assert [pod["metadata"]["name"] for pod in world.server.items("Pod") if pod["metadata"].get("finalizers")] == []


def check_verdict(world: World, task: Object) -> None:
    status, uid = task["status"], task["metadata"]["uid"]
    succeeded = world.succeeded.get(uid, [])
    reason = next(one["reason"] for one in status["conditions"] if one["type"] == "Completed")
    if status["phase"] == "Succeeded":
        assert status["podName"] in {one.name for one in succeeded}
        return
    assert status["phase"] == "Failed"
    if reason == "DeadlineExceeded":
        due_s = (parse_time_s(status["receivedTime"]) or 0.0) + DUE_S
        assert [one for one in succeeded if one.ended_s < due_s - KUBELET_S] == []
    else:
        assert (reason, len(status["failedAttempts"])) == ("PodFailed", task["spec"]["retries"] + 1)
        assert succeeded == []
