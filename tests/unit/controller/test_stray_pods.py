"""Pods that lost their label while no operator was there to see it."""

import asyncio
from typing import Any

import pytest

from perllm.api import names
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.runner_pods import RunnerPods
from perllm.controller.stray_pods import StrayPods
from perllm.settings.tasks import RunnerSettings
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes
from unit.controller.one_node_cluster import Cluster

pytestmark = pytest.mark.looptime

PODS = names.pods_path("lab")


async def search(api: FakeApiServer, *paths: str) -> None:
    client: Any = api
    writes = make_writes()
    runners = RunnerPods(RunnerSettings(), {})
    pods = PodKeeper(client, writes, scheduler_name="perllm", runners=runners)
    stray_pods = StrayPods(client, pods, paths or [PODS])
    running = [asyncio.create_task(work) for work in (writes.run(), stray_pods.run())]
    await asyncio.sleep(1)
    for task in running:
        task.cancel()


async def test_a_retained_pod_without_its_label_is_released_and_deleted() -> None:
    api = FakeApiServer()
    api.page_size = 1
    retained = {"namespace": "lab", "finalizers": [names.OUTCOME_FINALIZER]}
    api.store(f"{PODS}/stray", metadata=retained)
    api.store(f"{PODS}/task", metadata={**retained, "labels": {names.TASK_LABEL: "t"}})
    api.store(f"{PODS}/other", metadata={"namespace": "lab", "finalizers": ["example.com/held"]})

    await search(api)

    assert [path for path, _ in api.calls_of("PATCH")] == [f"{PODS}/stray/status"]
    assert [path for path, _ in api.calls_of("DELETE")] == [f"{PODS}/stray"]


async def test_pods_without_a_finalizer_are_left_alone() -> None:
    api = FakeApiServer()
    api.store(f"{PODS}/web", metadata={"namespace": "lab"})

    await search(api)

    assert not api.calls_of("PATCH")
    assert not api.calls_of("DELETE")


async def test_a_namespace_that_cannot_be_listed_keeps_none_in_the_others() -> None:
    api, closed = FakeApiServer(), names.pods_path("closed")
    api.closed = {closed}
    api.store(f"{PODS}/stray", metadata={"namespace": "lab", "finalizers": [names.OUTCOME_FINALIZER]})

    await search(api, closed, PODS)

    assert [path for path, _ in api.calls_of("DELETE")] == [f"{PODS}/stray"]


async def test_one_that_has_the_name_of_a_pod_to_be_created_makes_way() -> None:
    cluster = Cluster()
    retained = {"namespace": "lab", "uid": "uid-stray", "finalizers": [names.OUTCOME_FINALIZER]}
    cluster.api.store(f"{PODS}/t-1", metadata=retained)
    cluster.create()
    await asyncio.sleep(10)
    pod = cluster.api.read(f"{PODS}/t-1")
    cluster.stop()
    assert pod is not None
    assert names.TASK_LABEL in pod["metadata"]["labels"]


async def test_a_pod_of_others_that_has_the_name_of_one_to_be_created_is_left_alone() -> None:
    cluster = Cluster()
    cluster.api.store(f"{PODS}/t-1", metadata={"namespace": "lab"})
    cluster.create()
    await asyncio.sleep(10)
    cluster.stop()
    assert not cluster.api.calls_of("DELETE")
    assert cluster.condition("Scheduled")["reason"] == "PodNameTaken"
