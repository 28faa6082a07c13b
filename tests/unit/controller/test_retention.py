"""Which pods may be released, and the controller releasing them."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from perllm import slices
from perllm.api import names
from perllm.api.task_status import EnergyQuality, Observation, TaskPhase, TaskStatus
from perllm.cluster.pod import Pod, PodPhase, read_pod
from perllm.controller.pod_releases import INTERVAL_S, PodReleases
from perllm.controller.reconciler import Reconciler
from perllm.controller.retention import MARGIN_S, Records, may_release
from perllm.controller.tracking import Tracking
from perllm.energy.settlement import SETTLING_S
from unit.cluster.queues import make_guard
from unit.controller.one_node_cluster import PODS, START_S, Cluster, run_through
from unit.controller.samples import bound, failed, running, succeeded, waiting

NOW_S = 1020.0
SETTLED = TaskStatus(
    phase=TaskPhase.SUCCEEDED,
    pod_name="t-1",
    attempts=1,
    observed=Observation(latency=10.0, energy_quality=EnergyQuality.MEASURED),
)
UNSETTLED = TaskStatus(phase=TaskPhase.SUCCEEDED, pod_name="t-1", attempts=1, observed=Observation(latency=10.0))
RETRIED = TaskStatus(phase=TaskPhase.PENDING, attempts=1)


class TestAPodThatSucceeded:
    def test_is_released_once_it_is_recorded(self) -> None:
        assert may_release(succeeded(), Records(SETTLED, is_stored=True, is_learned=True), NOW_S)

    @pytest.mark.parametrize(
        "records",
        [
            Records(SETTLED, is_stored=False, is_learned=True),
            Records(SETTLED, is_stored=True, is_learned=False),
            Records(UNSETTLED, is_stored=True, is_learned=True),
            Records(TaskStatus(phase=TaskPhase.RUNNING, attempts=1), is_stored=True, is_learned=True),
        ],
        ids=["status not stored", "not learned", "energy not settled", "end not noticed"],
    )
    def test_is_retained_before(self, records: Records) -> None:
        assert not may_release(succeeded(is_deleting=True, gone_by_s=NOW_S - 1e6), records, NOW_S)

    @pytest.mark.parametrize("attempts", [0, 1])
    def test_too_late_for_its_task_is_released_once_the_end_of_that_is_stored(self, attempts: int) -> None:
        ended = TaskStatus(phase=TaskPhase.FAILED, attempts=attempts)
        assert may_release(succeeded(), Records(ended, is_stored=True), NOW_S)
        assert not may_release(succeeded(), Records(ended, is_stored=False), NOW_S)

    def test_of_another_attempt_than_the_one_that_counts_is_released(self) -> None:
        assert may_release(succeeded(attempt=2), Records(SETTLED, is_stored=True), NOW_S)


class TestAPodThatFailed:
    def test_is_released_once_its_attempt_is_counted(self) -> None:
        assert may_release(failed(), Records(RETRIED, is_stored=True), NOW_S)
        assert not may_release(failed(), Records(RETRIED, is_stored=False), NOW_S)
        assert not may_release(failed(attempt=2), Records(RETRIED, is_stored=True), NOW_S)


class TestAPodThatHasNotEnded:
    def test_is_retained(self) -> None:
        assert not may_release(running(), Records(RETRIED, is_stored=True), NOW_S)

    def test_is_released_if_it_was_deleted_before_it_had_a_node(self) -> None:
        assert may_release(waiting(is_deleting=True, gone_by_s=NOW_S), Records(RETRIED, is_stored=True), NOW_S)

    def test_is_released_if_its_end_is_long_overdue(self) -> None:
        deleted, records = running(is_deleting=True, gone_by_s=NOW_S), Records(RETRIED, is_stored=True)
        assert not may_release(deleted, records, NOW_S + MARGIN_S - 1)
        assert may_release(deleted, records, NOW_S + MARGIN_S)

    def test_is_released_when_it_should_be_gone_if_its_task_is_over(self) -> None:
        ended = Records(TaskStatus(phase=TaskPhase.FAILED, attempts=1), is_stored=True)
        deleted = bound(is_deleting=True, gone_by_s=NOW_S)
        assert not may_release(deleted, ended, NOW_S - 1)
        assert may_release(deleted, ended, NOW_S)


def test_a_pod_whose_task_is_gone_is_released_once_it_ends_or_is_deleted() -> None:
    gone = Records(None)
    assert not may_release(running(), gone, NOW_S)
    assert all(may_release(pod, gone, NOW_S) for pod in (waiting(), bound(is_deleting=True), succeeded(), failed()))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


def finalizers(cluster: Cluster, name: str = "t-1") -> list[str]:
    item = cluster.api.read(f"{PODS}/{name}")
    assert item is not None
    found: list[str] = item["metadata"]["finalizers"]
    return found


def store_learned_state(cluster: Cluster) -> None:
    revisions = cluster.parts.learner.revisions
    revisions.note_stored("n", revisions.current("n"))


@pytest.mark.looptime
async def test_releasing_many_pods_leaves_the_event_loop_to_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    released: list[Pod] = []
    unused: Any = None
    pods: Any = SimpleNamespace(release=released.append)
    releases = PodReleases(
        Tracking(),
        unused,
        unused,
        pods,
        has_tasks=lambda _: True,
        guard=make_guard(),
        unix_now=lambda: START_S,
    )
    for number in range(100):
        releases.note(waiting(is_retained=True, uid=str(number)), is_gone=False)
    running = asyncio.create_task(releases.run())
    await asyncio.sleep(INTERVAL_S)
    progress = set()
    while len(released) < 100:
        progress.add(len(released))
        await asyncio.sleep(0)
    assert len(progress) > 90
    running.cancel()


@pytest.mark.looptime
class TestReleases:
    async def test_follow_when_the_learned_state_is_stored(self, cluster: Cluster) -> None:
        await run_through(cluster)
        await asyncio.sleep(60)
        assert finalizers(cluster) == [names.OUTCOME_FINALIZER]
        store_learned_state(cluster)
        await asyncio.sleep(1)
        assert finalizers(cluster) == []

    async def test_change_nothing_else_about_the_task(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        await run_through(cluster)
        reconciled = list[object]()
        monkeypatch.setattr(Reconciler, "_reconcile", lambda _, key: reconciled.append(key))
        store_learned_state(cluster)
        await asyncio.sleep(2)
        assert finalizers(cluster) == []
        assert not reconciled

    async def test_leave_the_finalizers_of_others(self, cluster: Cluster) -> None:
        await run_through(cluster)
        cluster.pod(metadata={"finalizers": ["example.com/other", names.OUTCOME_FINALIZER]})
        store_learned_state(cluster)
        await asyncio.sleep(1)
        assert finalizers(cluster) == ["example.com/other"]

    async def test_precede_the_deletion_of_an_expired_task(self, cluster: Cluster) -> None:
        cluster.create(ttlAfterFinished="1s")
        await asyncio.sleep(2)
        cluster.bind()
        await asyncio.sleep(8.5)
        cluster.finish()
        await asyncio.sleep(SETTLING_S + 60)
        assert cluster.parts.learner.summaries("n")["m"].count == 1
        assert cluster.status()["phase"] == "Succeeded"
        store_learned_state(cluster)
        await asyncio.sleep(2)
        assert cluster.api.read(names.task_path("lab", "t")) is None

    async def test_are_immediate_if_the_task_was_deleted(self, cluster: Cluster) -> None:
        cluster.create()
        await asyncio.sleep(1)
        cluster.bind()
        cluster.delete()
        cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:17:30Z"})
        await asyncio.sleep(1)
        assert finalizers(cluster) == []

    @pytest.mark.parametrize(("unlisted", "left"), [("other", []), ("lab", [names.OUTCOME_FINALIZER])])
    async def test_wait_until_the_tasks_of_their_own_namespace_are_known(
        self, cluster: Cluster, unlisted: str, left: list[str]
    ) -> None:
        cluster.unlisted = {unlisted}
        cluster.start()
        owner = {"kind": names.TASK_KIND, "name": "t", "uid": "uid-gone"}
        cluster.pod(
            metadata={
                "namespace": "lab",
                "labels": {names.ATTEMPT_LABEL: "1"},
                "finalizers": [names.OUTCOME_FINALIZER],
                "ownerReferences": [owner],
                "deletionTimestamp": "1970-01-01T00:17:30Z",
            },
        )
        await asyncio.sleep(2)
        assert finalizers(cluster) == left

    async def test_follow_a_pod_that_lost_its_label_and_it_does_not_run_on(self, cluster: Cluster) -> None:
        cluster.create()
        await asyncio.sleep(1)
        cluster.bind()
        item = cluster.api.read(f"{PODS}/t-1")
        cluster.controller.on_pod(read_pod(item or {}), None)
        await asyncio.sleep(1)
        assert cluster.api.read(f"{PODS}/t-1") is None
        assert cluster.pods == ["t-1", "t-2"]


@pytest.mark.looptime
async def test_a_pod_that_succeeded_counts_although_it_was_deleted(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:17:00Z"})
    await asyncio.sleep(SETTLING_S + 1)
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.pods == ["t-1"]


@pytest.mark.looptime
async def test_an_attempt_that_was_given_up_may_still_succeed(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:17:00Z"}, status={"phase": PodPhase.RUNNING})
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1", "t-2"]
    cluster.pod("t-2", status={"phase": PodPhase.PENDING})
    await asyncio.sleep(6)
    cluster.finish("t-1")
    await asyncio.sleep(1.5)
    assert (cluster.status()["phase"], cluster.status()["podName"]) == ("Succeeded", "t-1")
    assert cluster.api.read(f"{PODS}/t-2") is None
