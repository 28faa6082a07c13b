"""Faults of PerLLM itself, each about one task."""

import asyncio
from typing import Any

import pytest

from perllm.api import names
from perllm.api.task_status import TaskStatus
from perllm.controller import controller, lifecycle
from perllm.controller.announcer import Announcer
from perllm.controller.reconciler import PROGRESS_DELAY_S
from perllm.controller.task import Task
from perllm.placement.decision import Decision
from unit.controller.one_node_cluster import PODS, Cluster
from unit.controller.test_retention import finalizers

pytestmark = pytest.mark.looptime


@pytest.fixture
def no_task_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(controller, "read_task", fail)


async def test_a_task_that_perllm_fails_on_says_so_and_delays_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = lifecycle.advance

    def fail_on_one(task: Task, *rest: Any, **options: Any) -> lifecycle.Step:
        if task.name == "cursed":
            raise KeyError("no such thing")
        return advance(task, *rest, **options)

    monkeypatch.setattr(lifecycle, "advance", fail_on_one)
    cluster.create("cursed")
    cluster.create("other")
    await asyncio.sleep(1)
    cursed = cluster.api.read(names.task_path("lab", "cursed"))
    assert cursed is not None
    assert "KeyError: 'no such thing'" in cursed["status"]["message"]
    assert cluster.api.read(f"{PODS}/other-1") is not None
    monkeypatch.undo()
    await asyncio.sleep(10)
    assert cluster.api.read(f"{PODS}/cursed-1") is not None


async def test_a_finished_task_that_perllm_fails_on_keeps_its_result(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(controller, "read_stub", fail)
    done = {"phase": "Succeeded", "observedGeneration": 1, "attempts": 1, "result": {"text": "42"}}
    cluster.create(status=done)
    await asyncio.sleep(10)
    assert cluster.status() == done


@pytest.mark.usefixtures("no_task_is_readable")
async def test_what_is_stored_of_a_task_that_cannot_be_read_is_kept(cluster: Cluster) -> None:
    cluster.create("cursed", status={"phase": "Running", "attempts": 3, "failedAttempts": [1, 2]})
    await asyncio.sleep(1)
    status = (cluster.api.read(names.task_path("lab", "cursed")) or {})["status"]
    assert (status["phase"], status["attempts"], status["failedAttempts"]) == ("Running", 3, [1, 2])
    assert "no such thing" in status["message"]


@pytest.mark.usefixtures("no_task_is_readable")
async def test_the_pod_of_a_task_that_cannot_be_read_is_retained_while_that_exists(cluster: Cluster) -> None:
    cluster.create()
    metadata = {
        "namespace": "lab",
        "labels": {names.ATTEMPT_LABEL: "1"},
        "finalizers": [names.OUTCOME_FINALIZER],
        "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
    }
    cluster.pod(metadata=metadata, spec={"nodeName": "n"}, status={"phase": "Succeeded"})
    await asyncio.sleep(60)
    assert finalizers(cluster) == [names.OUTCOME_FINALIZER]
    cluster.delete()
    await asyncio.sleep(1)
    assert finalizers(cluster) == []


@pytest.mark.usefixtures("no_task_is_readable")
async def test_a_task_that_cannot_be_read_is_forgotten_when_it_is_deleted(cluster: Cluster) -> None:
    cluster.create("cursed")
    await asyncio.sleep(0.1)
    assert cluster.guard.troubled == [("task", "lab/cursed")]
    cluster.delete("cursed")
    assert cluster.guard.troubled == []


@pytest.mark.usefixtures("no_task_is_readable")
async def test_a_task_that_cannot_be_read_is_forgotten_though_its_deletion_was_missed(cluster: Cluster) -> None:
    cluster.create("cursed")
    cluster.create("present")
    cluster.controller.on_list("other", {})
    cluster.controller.on_list("lab", {"lab/present": "uid-present"})
    assert cluster.guard.troubled == [("task", "lab/present")]


async def test_a_task_is_handled_although_perllm_fails_on_the_first_sight_of_its_pod(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(2)
    cluster.bind()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    restarted.see_pod()
    confirm, failures = restarted.scheduler.confirm, [ValueError("odd record")]

    def fail_once(decision: Decision, slots: float, resource: str) -> None:
        if failures:
            raise failures.pop()
        confirm(decision, slots, resource)

    monkeypatch.setattr(restarted.scheduler, "confirm", fail_once)
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted.controller.on_task(item, deleted=False)
    await asyncio.sleep(5)
    assert len(restarted.parts.ledger) == 1
    await asyncio.sleep(30)
    assert restarted.status()["phase"] == "Failed"
    restarted.stop()


async def test_a_deleted_task_that_perllm_fails_on_is_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(controller, "read_task", fail)
    cluster.create()
    await asyncio.sleep(1.5)
    assert "KeyError" in cluster.status()["message"]
    cluster.delete()
    faults = cluster.metric("perllm_faults_total", kind="task")
    await asyncio.sleep(60)
    assert cluster.metric("perllm_faults_total", kind="task") == faults
    monkeypatch.undo()
    cluster.create()
    await asyncio.sleep(PROGRESS_DELAY_S + 0.1)
    assert cluster.status()["phase"] == "Pending"


async def test_a_rejection_that_fails_halfway_is_still_written(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, failures = Announcer.ended, [ValueError("cannot be announced")]

    def fail_once(announcer: Announcer, task: Task, status: TaskStatus) -> None:
        if failures:
            raise failures.pop()
        ended(announcer, task, status)

    monkeypatch.setattr(Announcer, "ended", fail_once)
    cluster.create(onInfeasible="Reject", tiers=["cloud"])
    await asyncio.sleep(5)
    assert cluster.status()["phase"] == "Rejected"
    assert cluster.status()["message"].startswith("no node satisfies")
    assert cluster.condition("Scheduled")["reason"] == "Infeasible"
