"""Tasks of a namespace whose pods cannot be listed yet, while those of other namespaces are served."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perllm.api import names
from perllm.controller.reconciler import PODS_PAUSE_S
from unit.controller.one_node_cluster import Cluster
from unit.controller.test_history import is_history

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    cluster.pods_unlisted = {"lab"}
    yield cluster
    cluster.stop()


async def test_a_task_that_may_be_running_gets_no_second_pod(cluster: Cluster) -> None:
    cluster.create(deadline="1h", status={"podName": "t-1", "nodeName": "n", "attempts": 1, "phase": "Running"})
    await asyncio.sleep(60)
    assert cluster.pods == []
    assert "until the pods of namespace lab can be read" in cluster.status()["message"]
    own: dict[str, Any] = {
        "namespace": "lab",
        "labels": {names.ATTEMPT_LABEL: "1"},
        "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
    }
    cluster.pod(metadata=own, spec={"nodeName": "n"}, status={"phase": "Running"})
    cluster.pods_unlisted = set()
    await asyncio.sleep(60)
    assert cluster.pods == []
    assert (cluster.status()["phase"], cluster.status()["nodeName"]) == ("Running", "n")


async def test_a_task_without_a_pod_gets_one_once_they_are_listed(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(60)
    assert cluster.pods == []
    cluster.pods_unlisted = set()
    await asyncio.sleep(PODS_PAUSE_S + 1)
    assert cluster.pods == ["t-1"]


async def test_what_a_task_has_to_teach_is_not_given_up_with_its_pod(cluster: Cluster) -> None:
    observed = {"latency": 8.0, "energyQuality": "missing"}
    place = {"podName": "t-1", "nodeName": "n", "attempts": 1, "observedGeneration": 1}
    cluster.create(status={"phase": "Succeeded", "observed": observed, **place})
    await asyncio.sleep(60)
    assert not is_history(cluster)
    cluster.pods_unlisted = set()
    await asyncio.sleep(60)
    assert is_history(cluster)


async def test_those_of_other_namespaces_are_started(cluster: Cluster) -> None:
    cluster.pods_unlisted = {"other"}
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1"]
