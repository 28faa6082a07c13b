"""Every task that ends is logged in one line, once everything about it is known; missed deadlines are events."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from perllm.api import names
from perllm.controller.reconciler import Reconciler
from unit.controller.one_node_cluster import Cluster

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Cluster]:
    caplog.set_level(logging.INFO, "perllm.decisions")
    cluster = Cluster()
    yield cluster
    cluster.stop()


def events(cluster: Cluster) -> list[str]:
    """Return the reasons of the events, in order."""
    return [body["reason"] for path, body in cluster.api.calls_of("POST") if path.endswith("/events")]


def endings(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return outcome, reason, attempts and observed energy of every line about an end."""
    ended = [vars(record) for record in caplog.records if getattr(record, "event", "") == "ended"]
    return [(one["outcome"], one["reason"], one["attempts"], one["observed_energy_j"]) for one in ended]


async def test_a_success_is_logged_once_its_energy_is_measured(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    assert endings(caplog) == []
    await asyncio.sleep(60)
    ((outcome, reason, attempts, energy_j),) = endings(caplog)
    assert (outcome, reason, attempts) == ("Succeeded", "Succeeded", 1)
    assert energy_j == cluster.status()["observed"]["energyJoules"]
    cluster.delete()
    assert len(endings(caplog)) == 1
    assert cluster.metric("perllm_tasks_finished_total", phase="Deleted") == 0


async def test_a_success_that_is_deleted_before_its_energy_is_known_is_logged_without_it(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    cluster.delete()
    await asyncio.sleep(60)
    assert endings(caplog) == [("Succeeded", "Succeeded", 1, None)]


async def test_a_task_that_does_not_succeed_is_logged_at_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create("t")
    await asyncio.sleep(1)
    cluster.bind()
    cluster.finish(exit_code=3)
    cluster.create("u", onInfeasible="Reject", deadline="1s")
    await asyncio.sleep(0.1)
    assert endings(caplog) == [("Failed", "PodFailed", 1, None), ("Rejected", "Infeasible", 0, None)]
    assert events(cluster) == ["Placed", "Failed", "Rejected"]


@pytest.mark.parametrize("attempts", [1, 0], ids=["running", "waiting"])
async def test_a_task_that_is_deleted_is_logged(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, attempts: int
) -> None:
    cluster.create()
    await asyncio.sleep(1)
    if attempts:
        cluster.bind()
    cluster.delete()
    assert endings(caplog) == [("Deleted", "Deleted", attempts, None)]
    assert cluster.metric("perllm_tasks_finished_total", phase="Deleted") == 1


async def test_a_restart_between_end_and_measurement_logs_the_end_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    # No timer wakes a process that is gone.
    monkeypatch.setattr(Reconciler, "_wake", lambda *_: None)
    cluster.finish()
    await asyncio.sleep(0.1)
    cluster.stop()
    monkeypatch.undo()
    for begun_again in range(2):
        restarted = Cluster(cluster.api, cluster.begun_s)
        restarted.start()
        restarted.see_pod()
        item = cluster.api.read(names.task_path("lab", "t"))
        assert item is not None
        restarted.controller.on_task(item, deleted=False)
        await asyncio.sleep(60)
        restarted.stop()
        assert len(endings(caplog)) == 1, begun_again


async def test_a_missed_deadline_is_one_event_when_it_is_missed(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create(deadline="5s")
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(4)
    assert events(cluster) == ["Placed", "DeadlineMissed"]
    await asyncio.sleep(4.5)
    cluster.finish()
    await asyncio.sleep(60)
    assert events(cluster) == ["Placed", "DeadlineMissed"]
    (ended,) = (record for record in caplog.records if getattr(record, "event", "") == "ended")
    assert (ended.levelname, vars(ended)["deadline_met"]) == ("WARNING", False)
    assert "succeeded but MISSED its deadline" in ended.getMessage()
