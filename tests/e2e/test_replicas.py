"""Two replicas, one of them active: the one whose kube-scheduler holds the lease, by kube-scheduler's own election."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest_asyncio

from e2e.replicas import LEASE, NAMESPACE, PATIENT, SLACK_S, OperatorReplica, Pair, open_pair, repair
from e2e.replicas import PATIENT_LEASE_S as LEASE_S
from e2e.requests import synthetic_requests
from e2e.stage import Stage, phases, wait_until
from perllm.cluster.starts import MAX_STARTS
from perllm_lab.lab import Lab

START_S = SLACK_S
TASKS = 60


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(lab: Lab) -> AsyncIterator[Pair]:
    async with open_pair(lab, PATIENT) as replicas:
        yield replicas


@pytest_asyncio.fixture(loop_scope="session")
async def pair(replicas: Pair) -> Pair:
    """The active replica and the standby, whatever an earlier test did to them."""
    return await repair(replicas)


async def test_one_is_active_and_the_other_is_standby(pair: Pair) -> None:
    active, standby = pair
    assert (await active.ask("readyz"))[1].count("ok  ") == 6
    assert await standby.ask("readyz") == (200, "ok   the task watch can run\nok   standby\n")
    assert (await standby.ask("healthz"))[0] == 200
    assert await active.answers_scheduler()
    assert not await standby.answers_scheduler()


async def test_a_stopped_replica_hands_over_at_once(pair: Pair) -> None:
    active, standby = pair
    start_s, log_start = time.monotonic(), active.log_size()
    await active.stop()
    await wait_until(standby.is_active, timeout_s=LEASE_S)
    print(f"the standby is active {time.monotonic() - start_s:.1f} s after the stop was requested")
    assert "lost the lease" not in active.read_log(log_start)


async def test_an_operator_that_crashes_alone_is_active_again_within_seconds(pair: Pair) -> None:
    """The kube-scheduler in the same pod keeps the lease, so a single replica recovers fast too."""
    active, standby = pair
    await active.operator.kill()
    start_s = time.monotonic()
    await active.operator.start()
    await wait_until(active.is_active, timeout_s=LEASE_S + SLACK_S)
    print(f"active again {time.monotonic() - start_s:.1f} s after the start")
    assert not await standby.is_active()


async def test_an_operator_that_crashes_repeatedly_hands_over(pair: Pair) -> None:
    """kube-scheduler ends as well, since it cannot renew the lease, and is on standby once it is started again."""
    active, standby = pair
    assert await _crash_until_it_gives_up(active) >= MAX_STARTS
    start_s = time.monotonic()
    await wait_until(standby.is_active, timeout_s=LEASE_S + SLACK_S)
    print(f"the standby is active {time.monotonic() - start_s:.1f} s after the lease was given up")
    await wait_until(lambda: _has_scheduler_ended(active), timeout_s=LEASE_S + SLACK_S)
    await active.lab.control_plane.start_component(active.name)
    assert (await active.ask("readyz"))[1] == "ok   the task watch can run\nok   standby\n"
    assert await standby.is_active()


async def test_a_single_operator_that_crashes_repeatedly_comes_back_by_itself(pair: Pair) -> None:
    active, other = pair
    await other.stop()
    await _crash_until_it_gives_up(active)
    await wait_until(lambda: _has_scheduler_ended(active), timeout_s=LEASE_S + SLACK_S)
    start_s = time.monotonic()
    await active.lab.control_plane.start_component(active.name)
    await wait_until(active.is_active, timeout_s=LEASE_S + SLACK_S)
    print(f"active again {time.monotonic() - start_s:.1f} s after the start of kube-scheduler")


async def test_an_operator_whose_scheduler_dies_ends_before_the_other_begins(pair: Pair) -> None:
    active, standby = pair
    log_start = active.log_size()
    await active.lab.control_plane.kill_component(active.name)
    await wait_until(lambda: _is_active_alone(standby, active), timeout_s=LEASE_S + SLACK_S)
    await wait_until(lambda: _has_ended(active), timeout_s=SLACK_S)
    assert f"Error: lost the lease {NAMESPACE}/{LEASE} " in active.read_log(log_start)


async def test_no_task_is_lost_or_run_twice_when_the_active_replica_is_killed(pair: Pair, stage: Stage) -> None:
    active, standby = pair
    replay = stage.replay(synthetic_requests(stage.lab.scenario, TASKS, rate_per_s=1.0, seed=[11]))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(replay.run(timeout_s=300.0))
        keepers = [group.create_task(replica.keep_running()) for replica in pair]
        await _kill_once_bound(stage, TASKS // 4, active, standby, after="first")
        await active.start()
        await _kill_once_bound(stage, TASKS // 2, standby, active, after="second")
        await standby.start()
        await running
        for keeper in keepers:
            keeper.cancel()
    assert await replay.wait_measured(timeout_s=60.0), "the energy of some tasks is not settled"
    assert phases(await stage.tasks()) == Counter(Succeeded=TASKS + 2)
    assert stage.completed_runs() == Counter(dict.fromkeys([*replay.created_s, "first", "second"], 1))
    await stage.wait_learned(TASKS + 2, timeout_s=20)


async def _kill_once_bound(
    stage: Stage, count: int, active: OperatorReplica, standby: OperatorReplica, *, after: str
) -> None:
    """Kill the active replica once so many pods are bound; the other binds at least a task that is created then."""
    await stage.wait_bound(count, timeout_s=60)
    start_s = time.monotonic()
    await active.kill()
    await stage.create(after)
    await wait_until(standby.is_active, timeout_s=START_S)
    took_s = time.monotonic() - start_s
    await stage.wait_status(after, lambda status: status.get("nodeName") is not None, timeout_s=START_S)
    print(
        f"the standby is active {took_s:.1f} s after the kill, a new pod bound after {time.monotonic() - start_s:.1f} s"
    )


async def _crash_until_it_gives_up(replica: OperatorReplica) -> int:
    """Kill and start an operator until it gives the lease up; return how often it was started.

    On a busy machine that may take more starts, since those of two minutes ago do not count.
    """
    log_start = replica.log_size()

    async def has_decided() -> bool:
        return has_given_up() or await replica.is_active()

    def has_given_up() -> bool:
        return "gave up the lease" in replica.read_log(log_start)

    for starts in range(1, 2 * MAX_STARTS + 1):
        await replica.operator.kill()
        await replica.operator.start()
        await wait_until(has_decided, timeout_s=START_S)
        if has_given_up():
            return starts
    raise AssertionError("it does not give the lease up")


async def _has_scheduler_ended(replica: OperatorReplica) -> bool:
    return not replica.lab.control_plane.processes[replica.name].running


async def _is_active_alone(replica: OperatorReplica, other: OperatorReplica) -> bool:
    """Whether a replica is active; the other must not answer its kube-scheduler any more then."""
    is_active = await replica.is_active()
    assert not (is_active and await other.answers_scheduler()), "both replicas are active"
    return is_active


async def _has_ended(replica: OperatorReplica) -> bool:
    return not replica.operator.running
