"""Deadlines that end tasks, and which nodes missed them."""

import asyncio
import copy
from typing import Any

import numpy as np
import pytest

from perllm.api import names
from perllm.cluster.pod import read_pod
from unit.controller.one_node_cluster import PODS, Cluster

pytestmark = pytest.mark.looptime


async def test_the_deadline_ends_a_task_that_says_so(cluster: Cluster) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(30)
    assert cluster.status()["phase"] == "Failed"
    assert [path for path, _ in cluster.api.calls_of("DELETE")] == [f"{PODS}/t-1"]
    assert cluster.api.calls_of("DELETE")[0][1]["preconditions"] == {"uid": "uid-t-1"}


async def end_at_deadline(cluster: Cluster) -> dict[str, Any]:
    """Let task t be placed at 1001 s and ended at its deadline of 30 s; return its pod as it was."""
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    pod = copy.deepcopy(pod)
    await asyncio.sleep(30)
    assert cluster.api.read(f"{PODS}/t-1") is None
    return pod


async def test_a_task_that_was_ended_at_its_deadline_is_a_miss_of_its_node(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    cluster.controller.on_pod(read_pod(pod), None)
    learner = cluster.parts.learner
    assert learner.recent("n").ids == ["uid-t"]
    assert learner.summaries("n") == {}


@pytest.mark.parametrize(("report", "is_learned"), [("", True), ('{"prompts": 3}', False)], ids=["one", "several"])
async def test_that_an_answer_is_longer_than_it_came_is_learned_of_one_but_not_of_several_in_a_pod(
    cluster: Cluster, report: str, is_learned: bool
) -> None:
    learner = cluster.parts.learner
    learner.warm("n", "m")
    pod = await end_at_deadline(cluster)
    state = {"terminated": {"exitCode": 143, "message": report}}
    pod["status"] = {"phase": "Failed", "containerStatuses": [{"name": "llm", "state": state}]}
    before = learner.expect_length("m", 1000, 100)

    cluster.controller.on_pod(read_pod(pod), None)

    assert learner.recent("n").ids == ["uid-t"]
    assert (learner.expect_length("m", 1000, 100).mean > before.mean) == is_learned


async def test_a_pod_that_a_node_lost_is_not_a_miss_of_it(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    pod["status"] = {"phase": "Failed", "reason": "NodeLost"}
    cluster.controller.on_pod(read_pod(pod), None)
    assert cluster.parts.learner.recent("n").ids == []


async def test_a_pod_whose_container_was_restarted_is_not_a_miss_of_its_node(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    state = {"terminated": {"exitCode": 143}}
    statuses = [{"name": "llm", "state": state, "restartCount": 1}]
    cluster.controller.on_pod(read_pod(pod | {"status": {"phase": "Failed", "containerStatuses": statuses}}), None)
    assert cluster.parts.learner.recent("n").ids == []


async def test_a_pod_that_outlives_its_deletion_is_not_a_miss_of_its_node(cluster: Cluster) -> None:
    pod = await end_at_deadline(cluster)
    await asyncio.sleep(100)
    cluster.controller.on_pod(read_pod(pod), None)
    assert cluster.parts.learner.recent("n").ids == []


async def test_a_task_that_never_got_a_node_is_not_a_miss_of_any(cluster: Cluster) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s", tiers=["cloud"])
    await asyncio.sleep(31)
    assert cluster.status()["phase"] == "Failed"
    assert cluster.parts.learner.recent("n").ids == []


async def test_every_task_counts_once_in_the_mean_task(cluster: Cluster) -> None:
    learner = cluster.parts.learner
    learner.warm("n", "m")
    before = learner.laws("m", np.array([0])).usual.prompt_tokens
    cluster.create(promptTokens=5000)
    once = learner.laws("m", np.array([0])).usual.prompt_tokens
    await asyncio.sleep(1)
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    restarted.controller.on_task(item, deleted=False)
    assert once > before
    assert restarted.parts.learner.laws("m", np.array([0])).usual.prompt_tokens == before
    restarted.stop()
