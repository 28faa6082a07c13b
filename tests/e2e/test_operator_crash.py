"""The operator is killed again and again; whatever the cluster knows must be enough to go on."""

import asyncio
from collections import Counter

import numpy as np

from e2e.stage import Stage, phases, wait_until
from perllm.learning.node_state import read_state
from perllm.learning.recent import CAPACITY
from perllm_lab.lab import Lab
from perllm_lab.workload.requests import Request, build_requests
from perllm_lab.workload.synthetic import TraceStatistics, generate_arrivals

TASKS = 160
DOWN_S = 1.0


async def test_nothing_is_lost_or_done_twice_when_the_operator_dies(lab: Lab, stage: Stage) -> None:
    replay = stage.replay(_requests(lab))
    counts: list[int] = []
    async with asyncio.TaskGroup() as group:
        observing = group.create_task(_observe_learned(stage, counts))
        running = group.create_task(replay.run(timeout_s=120.0))
        await _crash_once_bound(stage, 1)
        await _crash_once_bound(stage, TASKS // 3)
        await _crash_once_bound(stage, 2 * TASKS // 3, again=True)
        await running
        assert await replay.wait_measured(timeout_s=60.0), "the energy of some tasks stays open"
        await _crash(lab)
        await wait_until(lambda: _has_learned(stage, TASKS), timeout_s=20, describe=lambda: f"learned: {counts[-1]}")
        await asyncio.sleep(3.0)  # a profile is written every two seconds; one count too many would show now
        observing.cancel()
    assert phases(await stage.tasks()) == Counter(Succeeded=TASKS)
    assert stage.completed_runs() == Counter(dict.fromkeys(replay.created_s, 1))
    assert counts == sorted(counts)
    await _assert_each_learned_once(stage)


def _requests(lab: Lab) -> list[Request]:
    """Return requests that keep coming while the operator is killed and comes back."""
    arrivals_rng, mix_rng = (np.random.default_rng([8, part]) for part in (1, 2))
    arrivals = generate_arrivals(TASKS, arrivals_rng, TraceStatistics(rate_per_s=2.0))
    return build_requests(arrivals, lab.scenario, mix_rng)


async def _assert_each_learned_once(stage: Stage) -> None:
    where = Counter(task["status"]["nodeName"] for task in (await stage.tasks()).values())
    profiles = await stage.profiles()
    assert {name: profile["status"]["outcomes"] for name, profile in profiles.items()} == where
    remembered = {name: min(count, CAPACITY) for name, count in where.items()}
    assert {name: len(set(read_state(profile["status"]).recent)) for name, profile in profiles.items()} == remembered


async def _crash_once_bound(stage: Stage, count: int, *, again: bool = False) -> None:
    """Kill the operator once so many pods are bound, and wait until it has bound more."""
    await wait_until(lambda: _has_bound(stage, count), timeout_s=60)
    await _crash(stage.lab, again=again)
    bound = _count_bound(stage)
    assert bound < TASKS, "the replay is too short to show anything"
    await wait_until(lambda: _has_bound(stage, bound + 1), timeout_s=20, describe=lambda: "placement does not resume")


async def _crash(lab: Lab, *, again: bool = False) -> None:
    """Kill the operator and start it; if wanted kill it again while it is starting."""
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


async def _has_learned(stage: Stage, count: int) -> bool:
    return await stage.learned() >= count


async def _has_bound(stage: Stage, count: int) -> bool:
    return _count_bound(stage) >= count


def _count_bound(stage: Stage) -> int:
    return sum(bool(states[-1]["spec"].get("nodeName")) for states in stage.seen.values())
