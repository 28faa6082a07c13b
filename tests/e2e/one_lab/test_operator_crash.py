"""The operator is killed repeatedly; what is stored in the cluster must be enough to continue."""

import asyncio
from collections import Counter

from e2e.requests import synthetic_requests
from e2e.stage import Stage, phases
from perllm.learning.node_state import read_state
from perllm.learning.recent import CAPACITY
from perllm_lab.lab import Lab

TASKS = 100
AFTER = ("after-first", "after-second", "after-third")
"""Are created after each crash, however much of the rest is done by then."""

DOWN_S = 1.0


async def test_nothing_is_lost_or_done_twice_when_the_operator_dies(lab: Lab, stage: Stage) -> None:
    replay = stage.replay(synthetic_requests(lab.scenario, TASKS, rate_per_s=2.0, seed=[8]))
    counts: list[int] = []
    async with asyncio.TaskGroup() as group:
        observing = group.create_task(_observe_learned(stage, counts))
        running = group.create_task(replay.run(timeout_s=120.0))
        await _crash_once_bound(stage, 1, after=AFTER[0])
        await _crash_once_bound(stage, TASKS // 3, after=AFTER[1])
        await _crash_once_bound(stage, 2 * TASKS // 3, after=AFTER[2], again=True)
        await running
        assert await replay.wait_measured(timeout_s=60.0), "the energy of some tasks is not settled"
        await _crash(lab)
        await stage.wait_learned(TASKS + len(AFTER), timeout_s=20)
        await asyncio.sleep(3.0)  # a profile is written every two seconds; one count too many would show now
        observing.cancel()
    assert phases(await stage.tasks()) == Counter(Succeeded=TASKS + len(AFTER))
    assert stage.completed_runs() == Counter(dict.fromkeys([*replay.created_s, *AFTER], 1))
    assert counts == sorted(counts)
    await _assert_each_learned_once(stage)


async def _assert_each_learned_once(stage: Stage) -> None:
    where = Counter(task["status"]["nodeName"] for task in (await stage.tasks()).values())
    profiles = await stage.profiles()
    assert {name: profile["status"]["outcomes"] for name, profile in profiles.items()} == where
    remembered = {name: min(count, CAPACITY) for name, count in where.items()}
    assert {name: len(set(read_state(profile["status"]).recent)) for name, profile in profiles.items()} == remembered


async def _crash_once_bound(stage: Stage, count: int, *, after: str, again: bool = False) -> None:
    """Kill the operator once so many pods are bound, restart it, and wait until it has bound a task of this name."""
    await stage.wait_bound(count, timeout_s=60)
    await _crash(stage.lab, again=again)
    await stage.create(after)
    await stage.wait_status(after, lambda status: status.get("nodeName") is not None)


async def _crash(lab: Lab, *, again: bool = False) -> None:
    """Kill the operator and restart it; with `again`, kill it a second time while it starts."""
    await lab.operator.kill()
    await asyncio.sleep(DOWN_S)
    if again:
        await lab.operator.start()
        await asyncio.sleep(DOWN_S)
        await lab.operator.kill()
    await lab.start_operator()


async def _observe_learned(stage: Stage, counts: list[int]) -> None:
    while True:
        counts.append(await stage.learned())
        await asyncio.sleep(0.25)
