"""The Workloads of tasks: changes of tasks and of Kueue come in, requests to the API server go out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from perllm.api.task_status import TaskPhase
from perllm.cluster.client import ApiError, Object
from perllm.kueue.flavor import Flavor
from perllm.kueue.pod_update import NO_UPDATE, PodUpdate
from perllm.kueue.priority_class import PriorityClass
from perllm.kueue.workload import workload_name, workloads_path
from perllm.kueue.workloads import Workloads
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes
from unit.kueue.samples import admit, evict, make_queued, make_workload, workload_object

pytestmark = pytest.mark.looptime

PATH = f"{workloads_path('lab')}/{workload_name('t', 'uid-t')}"
TASK = make_queued()


class Setting:
    def __init__(self) -> None:
        self.api = FakeApiServer()
        self.changed: list[tuple[str, str]] = []
        client: Any = self.api
        self.writes = make_writes()
        self.workloads = Workloads(
            client,
            self.writes,
            lambda key, uid: self.changed.append((key, uid)),
            is_known=lambda _: True,
            unix_now=lambda: 1000.0,
        )

    def sent(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _ in self.api.calls]

    def written(self) -> Object:
        """Return the conditions that the last patch wrote, by type."""
        _, body = self.api.calls_of("PATCH")[-1]
        return {one["type"]: one["status"] for one in body["status"]["conditions"]}


@pytest_asyncio.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    setting.api.store(PATH, **workload_object())
    running = asyncio.create_task(setting.writes.run())
    yield setting
    running.cancel()


async def test_a_task_without_a_workload_gets_one_and_waits(setting: Setting) -> None:
    setting.api.remove(PATH)
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(1)
    assert setting.sent() == [("POST", workloads_path("lab"))]
    assert setting.workloads.find_obstacle(TASK) == "its Workload for queue team is being created"


async def test_a_workload_that_is_deleted_is_created_again(setting: Setting) -> None:
    setting.workloads.on_workload(None, admit())
    setting.workloads.on_workload(admit(), None)
    setting.api.remove(PATH)
    assert setting.workloads.find_obstacle(TASK) is not None
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(1)
    assert setting.sent() == [("POST", workloads_path("lab"))]


async def test_a_workload_that_cannot_be_created_is_retried_and_the_task_says_why_it_waits(setting: Setting) -> None:
    setting.api.remove(PATH)
    setting.api.fail("POST", ApiError(404, "NotFound", "the server could not find the requested resource"))
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(0.01)
    assert "could not find the requested resource" in (setting.workloads.find_obstacle(TASK) or "")
    assert setting.changed == [("lab/t", "uid-t")]
    await asyncio.sleep(5)
    assert setting.api.read(PATH) is not None


async def test_a_task_that_is_gone_while_it_asks_for_quota_leaves_nothing(setting: Setting) -> None:
    setting.api.remove(PATH)
    setting.api.slow_s = 1.0
    setting.api.fail("POST", *[ApiError(403, "Forbidden", "namespace lab is being terminated")] * 100)
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(0.5)
    setting.workloads.forget(TASK.key, TASK.uid)
    await asyncio.sleep(600)
    assert len(setting.sent()) == 1
    assert len(setting.writes) == 0
    assert setting.changed == []


async def test_a_task_that_is_gone_does_not_ask_for_quota_any_more(setting: Setting) -> None:
    setting.api.remove(PATH)
    setting.api.fail("POST", *[ApiError(404, "NotFound", "no such namespace")] * 100)
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(1)
    setting.workloads.forget("lab/t", "uid-t")
    count = len(setting.sent())
    await asyncio.sleep(300)
    assert len(setting.sent()) == count


async def test_a_task_waits_for_its_priority_class_and_has_the_priority_that_it_states(setting: Setting) -> None:
    setting.api.remove(PATH)
    task = make_queued(priority=1, priority_class="urgent")
    setting.workloads.report(task, TaskPhase.PENDING, is_active=False)
    assert setting.workloads.find_obstacle(task) == "there is no WorkloadPriorityClass urgent"
    setting.workloads.on_priority_class(None, PriorityClass("urgent", 5000))
    assert setting.changed == [("lab/t", "uid-t")]
    setting.workloads.report(task, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(1)
    spec = (setting.api.read(PATH) or {})["spec"]
    assert (spec["priority"], spec["priorityClassRef"]["name"]) == (5000, "urgent")


def test_an_admitted_task_may_run_on_the_nodes_of_its_flavor_once_that_is_known(setting: Setting) -> None:
    setting.workloads.on_workload(None, admit("edge"))
    assert setting.workloads.find_obstacle(TASK) == "its ResourceFlavor edge is not known"
    setting.changed.clear()
    setting.workloads.on_flavor(None, Flavor("edge", PodUpdate((("tier", "edge"),))))
    assert setting.changed == [("lab/t", "uid-t")]
    assert setting.workloads.find_obstacle(TASK) is None
    assert setting.workloads.find_update("uid-t").node_labels == (("tier", "edge"),)
    assert setting.workloads.find_update("uid-other") == NO_UPDATE


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (lambda: make_workload({"QuotaReserved": False}, messages={"QuotaReserved": "no room"}), "no room"),
        (evict, "Preempted to make room"),
        (make_workload, "queue team has not admitted it yet"),
    ],
)
def test_a_task_waits_with_the_words_of_kueue(setting: Setting, workload: Callable[[], Any], words: str) -> None:
    setting.workloads.on_workload(None, workload())
    assert setting.workloads.find_obstacle(TASK) == words


async def test_an_evicted_task_gives_back_its_quota_only_when_nothing_of_it_runs(setting: Setting) -> None:
    setting.workloads.on_workload(None, evict())
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=True)
    await asyncio.sleep(1)
    assert setting.sent() == []
    setting.workloads.report(TASK, TaskPhase.PENDING, is_active=False)
    await asyncio.sleep(1)
    assert setting.written()["QuotaReserved"] == "False"


async def test_a_task_that_runs_is_ready_and_one_that_has_ended_is_finished(setting: Setting) -> None:
    setting.workloads.on_workload(None, admit())
    setting.workloads.report(TASK, TaskPhase.RUNNING, is_active=True)
    await asyncio.sleep(1)
    assert setting.written()["PodsReady"] == "True"
    setting.workloads.report(TASK, TaskPhase.SUCCEEDED, is_active=False)
    await asyncio.sleep(1)
    assert setting.written()["Finished"] == "True"


async def test_what_was_written_is_not_written_again_until_its_effect_is_seen(setting: Setting) -> None:
    setting.workloads.on_workload(None, admit(version="7"))
    for _ in range(3):
        setting.workloads.report(TASK, TaskPhase.FAILED, is_active=False)
        await asyncio.sleep(1)
    assert len(setting.sent()) == 1
    setting.workloads.on_workload(None, admit(version="8"))
    setting.workloads.report(TASK, TaskPhase.FAILED, is_active=False)
    await asyncio.sleep(1)
    assert len(setting.sent()) == 2


async def test_a_write_that_kueue_was_faster_than_is_left_to_what_is_seen_next(setting: Setting) -> None:
    setting.workloads.on_workload(None, admit())
    setting.api.fail("PATCH", ApiError(409, "Conflict", "changed"))
    setting.workloads.report(TASK, TaskPhase.SUCCEEDED, is_active=False)
    await asyncio.sleep(100)
    assert len(setting.sent()) == 1
