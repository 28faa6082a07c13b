"""Finished tasks: what is kept of them, and until when."""

import asyncio
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import pytest

from perllm.api import names
from perllm.controller.history import History, HistoryLimits, Stub
from perllm.controller.pods import build_pod
from perllm.controller.task import read_task
from perllm.energy.settlement import SETTLING_S
from unit.controller.one_node_cluster import PODS, START_S, Cluster, run_through
from unit.controller.samples import make_own_decision, running, task_object
from unit.controller.test_retention import store_learned_state


class Deleted:
    """Stands in for what deletes tasks, and records them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def delete(self, path: str, uid: str) -> None:
        self.names.append(path.rpartition("/")[2])


def make_history(limits: HistoryLimits, now_s: float = 1000.0) -> tuple[History, list[str]]:
    deleted: Any = Deleted()
    return History(deleted, limits, lambda: now_s), deleted.names


def put(history: History, name: str, ended_s: float, ttl_s: float | None = None, namespace: str = "lab") -> None:
    history.add(f"{namespace}/{name}", Stub(f"uid-{name}", 1, ended_s, history.expire_s(ended_s, ttl_s), b""))


async def finish_and_change(cluster: Cluster, created: dict[str, Any], **changed: Any) -> None:
    """Have a task end and become history; then change its spec."""
    cluster.create(**created)
    await asyncio.sleep(2)
    cluster.bind()
    cluster.finish(exit_code=3)
    await asyncio.sleep(3)
    assert is_history(cluster)
    task = task_object(**changed, status=cluster.status())
    task["metadata"]["generation"] = 2
    cluster.controller.on_task(cluster.api.store(names.task_path("lab", "t"), **task), deleted=False)


class TestHistory:
    def test_deletes_tasks_whose_time_is_over(self) -> None:
        history, deleted = make_history(HistoryLimits(default_ttl_s=100.0))
        put(history, "default", 900.0)
        put(history, "own", 990.0, ttl_s=10.0)
        put(history, "longer", 900.0, ttl_s=101.0)
        put(history, "later", 901.0)
        history.tidy()
        history.tidy()
        assert sorted(deleted) == ["default", "own"]

    def test_goes_by_the_newest_time_to_live(self) -> None:
        history, deleted = make_history(HistoryLimits())
        put(history, "t", 990.0, ttl_s=10.0)
        put(history, "t", 990.0, ttl_s=3600.0)
        history.tidy()
        assert deleted == []

    def test_remembers_nothing_of_earlier_times_to_live(self) -> None:
        history, _ = make_history(HistoryLimits(default_ttl_s=1e6, max_tasks=5000))
        for _ in range(1000):
            put(history, "t", 0.0)
            history.tidy()
        assert len(history._by_expiry) + len(history._by_end["lab"]) < 300

    def test_keeps_everything_without_limits(self) -> None:
        history, deleted = make_history(HistoryLimits(), now_s=1e12)
        put(history, "t", 0.0)
        history.tidy()
        assert deleted == []

    def test_deletes_what_ended_first_where_there_are_too_many(self) -> None:
        history, deleted = make_history(HistoryLimits(inf, max_tasks=2))
        for name, ended_s in (("b", 2.0), ("a", 1.0), ("d", 4.0), ("c", 3.0)):
            put(history, name, ended_s)
            put(history, name, ended_s, namespace=name)
        history.tidy()
        assert deleted == ["a", "b"]
        history.forget("lab/c")
        put(history, "e", 5.0)
        history.tidy()
        assert deleted == ["a", "b"]

    def test_remembers_nothing_of_tasks_that_users_delete_themselves(self) -> None:
        history, _ = make_history(HistoryLimits(default_ttl_s=1e6, max_tasks=5000))
        put(history, "kept", 0.0)
        for number in range(1000):
            put(history, str(number), 0.0)
            history.forget(f"lab/{number}")
            history.tidy()
        assert len(history._by_expiry) + len(history._by_end["lab"]) < 300

    def test_forgets_a_namespace_with_its_last_task(self) -> None:
        history, _ = make_history(HistoryLimits(inf, max_tasks=1))
        for number in range(100):
            put(history, "t", 1.0, namespace=f"n{number}")
            history.forget(f"n{number}/t")
        assert (len(history), history._by_end) == (0, {})


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


def is_history(cluster: Cluster, name: str = "t") -> bool:
    return cluster.controller._history.contains(f"lab/{name}", f"uid-{name}")


@pytest.mark.looptime
class TestATask:
    async def test_is_history_once_it_is_recorded_and_deleted_at_its_time(self, cluster: Cluster) -> None:
        await run_through(cluster)
        assert not is_history(cluster)
        store_learned_state(cluster)
        await asyncio.sleep(2)
        assert is_history(cluster)
        assert list(cluster.controller._tracking) == []
        assert cluster.parts.learner.summaries("n")["m"].count == 1

    async def test_that_was_over_before_a_restart_is_history_at_once(self, cluster: Cluster) -> None:
        await run_through(cluster)
        store_learned_state(cluster)
        await asyncio.sleep(2)
        restarted = Cluster(cluster.api, cluster.begun_s)
        restarted.controller.on_task(cluster.api.read(names.task_path("lab", "t")) or {}, deleted=False)
        assert is_history(restarted)
        restarted.stop()

    async def test_whose_pod_is_retained_is_no_history_after_a_restart(self, cluster: Cluster) -> None:
        await run_through(cluster)
        restarted = Cluster(cluster.api, cluster.begun_s)
        restarted.pod()
        restarted.controller.on_task(cluster.api.read(names.task_path("lab", "t")) or {}, deleted=False)
        assert not is_history(restarted)
        assert restarted.parts.learner.summaries("n")["m"].count == 1
        restarted.stop()

    async def test_whose_spec_changes_is_taken_up_again(self, cluster: Cluster) -> None:
        await finish_and_change(cluster, {}, ttlAfterFinished="1s")
        await asyncio.sleep(3)
        assert cluster.api.read(names.task_path("lab", "t")) is None

    async def test_whose_time_to_live_is_extended_is_kept(self, cluster: Cluster) -> None:
        await finish_and_change(cluster, {"ttlAfterFinished": "1m"}, ttlAfterFinished="1h")
        await asyncio.sleep(1800)
        assert cluster.api.read(names.task_path("lab", "t")) is not None

    async def test_that_is_gone_is_forgotten(self, cluster: Cluster) -> None:
        cluster.create(deadline="1s", onDeadlineMissed="Terminate")
        await asyncio.sleep(SETTLING_S)
        assert is_history(cluster)
        cluster.controller.on_list(None, {})
        assert not is_history(cluster)

    @pytest.mark.parametrize("waits_s", [0.0, 5.0], ids=["while tracked", "in the history"])
    @pytest.mark.parametrize(
        "edit",
        [{"phase": "Pending", "message": "x"}, {"podName": None}, None],
        ids=["fields changed", "a field removed", "all removed"],
    )
    async def test_whose_status_another_client_edits_gets_it_back(
        self, cluster: Cluster, edit: dict[str, Any] | None, waits_s: float
    ) -> None:
        cluster.create()
        await asyncio.sleep(2)
        cluster.bind()
        cluster.finish(exit_code=3)
        await asyncio.sleep(0.1 + waits_s)
        assert is_history(cluster) == bool(waits_s)
        before, path = cluster.status(), names.task_path("lab", "t")
        cluster.controller.on_task(cluster.api.store(path, status=edit), deleted=False)
        await asyncio.sleep(0.1)
        assert cluster.status() == before

    async def test_is_not_written_again_for_a_status_that_the_watch_shows_late(self, cluster: Cluster) -> None:
        cluster.create()
        await asyncio.sleep(4)
        before = cluster.api.read(names.task_path("lab", "t"))
        assert before is not None
        cluster.bind()
        cluster.finish(exit_code=3)
        await asyncio.sleep(5)
        assert is_history(cluster)
        written = len(cluster.api.calls_of("PATCH"))
        cluster.controller.on_task(before, deleted=False)
        await asyncio.sleep(1)
        assert len(cluster.api.calls_of("PATCH")) == written

    async def test_whose_status_is_removed_while_its_spec_changes_is_not_run_again(self, cluster: Cluster) -> None:
        cluster.create()
        await asyncio.sleep(2)
        cluster.bind()
        cluster.finish(exit_code=3)
        await asyncio.sleep(5)
        assert is_history(cluster)
        changed = {"metadata": {"generation": 2}, "spec": {"ttlAfterFinished": "1h"}}
        item = cluster.api.store(names.task_path("lab", "t"), status=None, **changed)
        cluster.controller.on_task(item, deleted=False)
        await asyncio.sleep(5)
        assert (cluster.status()["phase"], cluster.pods) == ("Failed", ["t-1"])
        assert cluster.status()["observedGeneration"] == 2

    async def test_that_gets_a_pod_after_its_end_has_it_deleted_and_takes_no_slot(self, cluster: Cluster) -> None:
        cluster.create(deadline="1s", onDeadlineMissed="Terminate")
        await asyncio.sleep(3)
        assert is_history(cluster)
        cluster.api.store(f"{PODS}/t-1", **build_pod(read_task(task_object(), START_S)[0], 1, "perllm"))
        cluster.scheduler.confirm(make_own_decision(), 1.0)
        cluster.bind()
        await asyncio.sleep(0.1)
        assert cluster.api.read(f"{PODS}/t-1") is None
        cluster.controller.on_pod(None, running(is_deleting=True))
        assert len(cluster.parts.ledger) == 0
