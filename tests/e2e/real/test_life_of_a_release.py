"""Upgrade, a second release and uninstallation, each with tasks in flight."""

import asyncio
import time
from collections import Counter

from e2e.real.cluster import RealCluster
from e2e.real.release import PREVIOUS_VERSION, Helm, Release, make_namespace
from e2e.real.work import make_long_task, open_replay, wait_learned
from e2e.stage import phases, wait_until
from perllm.api import names
from perllm.cluster.client import ApiError, Object
from perllm_lab.trace_replay import TraceReplay

TASKS = 40
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_an_upgrade_loses_neither_tasks_in_flight_nor_learned_state(
    release: Release, cluster: RealCluster
) -> None:
    await release.install(await release.helm.package(PREVIOUS_VERSION))
    assert _version(await release.pods()) == PREVIOUS_VERSION
    await make_namespace(cluster, "upgrade")
    await cluster.client.post(names.tasks_path("upgrade"), make_long_task(cluster, "upgrade"))
    await wait_until(lambda: _runs(cluster, "upgrade", "long-1"), timeout_s=30)
    replay = open_replay(cluster, "upgrade", TASKS, interval_s=0.4)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(replay.run(timeout_s=60.0))
        await wait_until(lambda: _has_finished(replay, TASKS // 4), timeout_s=30)
        await release.install()
        assert await _runs(cluster, "upgrade", "long-1"), "it ended before the upgrade, or did not survive it"
        await running
    await cluster.client.delete(names.task_path("upgrade", "long"))
    replay.objects.pop("long")
    assert phases(replay.objects) == Counter(Succeeded=TASKS)
    assert Counter(task["status"]["attempts"] for task in replay.objects.values()) == {1: TASKS}
    await wait_learned(cluster)


async def test_two_releases_place_their_own_tasks_and_learn_separately(
    release: Release, helm: Helm, cluster: RealCluster
) -> None:
    for namespace in ("ours", "theirs"):
        await make_namespace(cluster, namespace)
    await release.install(config={"namespaces": ["ours"]})
    neighbour = Release(helm, "neighbour-perllm", "neighbour-system")
    await make_namespace(cluster, neighbour.namespace, restricted=True)
    own = {"namespaces": ["theirs"], "scheduler_name": "neighbour", "instance": "neighbour"}
    await neighbour.install(config=own, crds={"enabled": False})
    replays = [open_replay(cluster, namespace, TASKS) for namespace in ("ours", "theirs")]
    await asyncio.gather(*(replay.run(timeout_s=60.0) for replay in replays))
    assert [phases(replay.objects) for replay in replays] == [Counter(Succeeded=TASKS)] * 2
    assert {task.partition("/")[0] for task in await release.decided()} == {"ours"}
    assert {task.partition("/")[0] for task in await neighbour.decided()} == {"theirs"}
    await wait_learned(cluster, served=lambda namespace: namespace != "theirs")
    await wait_learned(cluster, instance="neighbour", served=lambda namespace: namespace == "theirs")
    await neighbour.uninstall()
    await _assert_nothing_left(neighbour, cluster)


async def test_uninstallation_keeps_the_tasks_and_strands_nothing(release: Release, cluster: RealCluster) -> None:
    await make_namespace(cluster, "left")
    await release.install()
    await cluster.client.post(names.tasks_path("left"), make_long_task(cluster, "left"))
    await wait_until(lambda: _runs(cluster, "left", "long-1"), timeout_s=30)
    replay = open_replay(cluster, "left", TASKS)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(replay.run(timeout_s=60.0))
        await wait_until(lambda: _has_finished(replay, 1), timeout_s=30)
        start_s = time.monotonic()
        await release.uninstall()
        print(f"\nuninstalled in {time.monotonic() - start_s:.1f} s")
        running.cancel()
    await _assert_nothing_left(release, cluster)
    pods = (await cluster.client.get(names.pods_path("left")))["items"]
    assert {pod["status"]["phase"] for pod in pods} >= {"Running", "Succeeded"}
    tasks = (await cluster.client.get(names.tasks_path("left")))["items"]
    assert [one["metadata"]["name"] for one in (*pods, *tasks) if one["metadata"].get("finalizers")] == []
    await cluster.client.delete("/api/v1/namespaces/left")
    await wait_until(lambda: _is_gone(cluster, "/api/v1/namespaces/left"), timeout_s=60)


async def test_the_definitions_are_removed_with_the_release_when_not_kept(
    release: Release, cluster: RealCluster
) -> None:
    await release.install(crds={"keep": False})
    await release.uninstall()
    await _assert_nothing_left(release, cluster)
    definitions = [item["metadata"]["name"] for item in (await cluster.client.get(CRDS))["items"]]
    assert [name for name in definitions if name.endswith(names.GROUP)] == []


async def _assert_nothing_left(release: Release, cluster: RealCluster) -> None:
    """Assert that no object of any listable kind carries the label of a release."""
    kinds = (await cluster.kubectl("api-resources", "--verbs=list", "--output=name")).split()
    # By default the definitions outlive the release and keep its label.
    searched = ",".join(kind for kind in kinds if not kind.startswith("customresourcedefinitions."))
    selector = ("--selector", f"app.kubernetes.io/instance={release.name}")

    async def is_clean() -> bool:
        return not await cluster.kubectl("get", searched, "--all-namespaces", *selector, "--output=name")

    await wait_until(is_clean, timeout_s=30)


async def _has_finished(replay: TraceReplay, count: int) -> bool:
    return replay.finished >= count


async def _runs(cluster: RealCluster, namespace: str, name: str) -> bool:
    pods = (await cluster.client.get(names.pods_path(namespace)))["items"]
    return any((pod["metadata"]["name"], pod["status"]["phase"]) == (name, "Running") for pod in pods)


async def _is_gone(cluster: RealCluster, path: str) -> bool:
    try:
        await cluster.client.get(path)
    except ApiError as error:
        return error.status == 404
    return False


def _version(pods: list[Object]) -> str:
    """Return the tag of the operator's image."""
    ((image, *_),) = ([one["image"] for one in pod["spec"]["containers"] if one["name"] == "operator"] for pod in pods)
    tag: str = image.rpartition(":")[2]
    return tag
