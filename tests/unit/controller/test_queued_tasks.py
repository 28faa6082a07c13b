"""Tasks that may not run: suspended ones, and those in a queue of Kueue that has not admitted them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.pod import read_pod
from perllm.cluster.pod_ends import MARGIN_S
from perllm.controller.pods import build_pod
from perllm.controller.suspensions import Suspensions
from perllm.kueue.flavor import Flavor
from perllm.kueue.pod_update import PodUpdate
from perllm.kueue.workload import workload_name, workloads_path
from perllm.kueue.workloads import Workloads
from perllm.placement.fleet import Bandwidth
from unit.controller.one_node_cluster import PODS, START_S, Cluster
from unit.controller.samples import make_task, task_object
from unit.controller.test_silent_nodes import SILENT
from unit.kueue.samples import admit, evict, make_workload

pytestmark = pytest.mark.looptime

WORKLOAD = f"{workloads_path('lab')}/{workload_name('t', 'uid-t')}"


class QueueCluster(Cluster):
    """A cluster where tasks may be in queues."""

    is_known = True

    def build_suspensions(self) -> Suspensions:
        client: Any = self.api
        self.workloads = Workloads(
            client,
            self.writes,
            lambda key, uid: self.controller.on_admission(key, uid),
            is_known=lambda _: self.is_known,
            unix_now=self.now_s,
        )
        self.workloads.on_flavor(None, Flavor("edge", PodUpdate((("tier", "edge"),))))
        return Suspensions(self.workloads, "perllm.io/served-tasks")

    def conditions(self) -> Object:
        """Return the conditions of the Workload as they were last written, by type."""
        bodies = [body for path, body in self.api.calls_of("PATCH") if path == f"{WORKLOAD}/status"]
        return {one["type"]: one["status"] for body in bodies[-1:] for one in body["status"]["conditions"]}


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[QueueCluster]:
    cluster = QueueCluster()
    yield cluster
    cluster.stop()


async def test_a_task_in_a_queue_runs_once_it_is_admitted(cluster: QueueCluster) -> None:
    cluster.create(queue="team")
    await asyncio.sleep(2)
    assert cluster.pods == []
    assert cluster.condition("Scheduled")["reason"] == "WaitingForQuota"
    cluster.workloads.on_workload(None, admit())
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1"]


async def test_a_task_whose_quota_is_for_other_nodes_does_not_run_on_these(cluster: QueueCluster) -> None:
    cluster.create(queue="team")
    cluster.workloads.on_workload(None, admit("edge"))
    await asyncio.sleep(2)
    assert cluster.pods == []
    assert "nodeSelector tier=edge" in cluster.status()["message"]


async def test_a_waiting_task_whose_quota_becomes_one_for_other_nodes_is_placed_there(cluster: QueueCluster) -> None:
    cluster.create(queue="team")
    cluster.workloads.on_workload(None, admit("edge"))
    await asyncio.sleep(1)
    cluster.workloads.on_flavor(None, Flavor("edge"))
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1"]


async def test_an_attempt_goes_on_although_the_flavor_of_its_quota_is_deleted_and_the_next_one_waits_for_it(
    cluster: QueueCluster,
) -> None:
    cluster.workloads.on_flavor(None, Flavor("spot"))
    cluster.create(queue="team", retries=1)
    cluster.workloads.on_workload(None, admit("spot"))
    await asyncio.sleep(1)
    cluster.bind()
    running = {"name": "llm", "state": {"running": {"startedAt": "1970-01-01T00:16:42Z"}}}
    cluster.pod(status={"phase": "Running", "containerStatuses": [running]})
    cluster.workloads.on_flavor(Flavor("spot"), None)
    cluster.see_pod()
    await asyncio.sleep(5)
    assert cluster.status()["phase"] == "Running"
    cluster.finish(exit_code=1)
    await asyncio.sleep(5)
    assert cluster.pods == ["t-1"]
    assert "its ResourceFlavor spot is not known" in cluster.status()["message"]


async def test_a_task_that_loses_its_quota_leaves_its_line_and_its_reservation(cluster: QueueCluster) -> None:
    cluster.create(queue="team")
    cluster.workloads.on_workload(None, admit("edge"))
    await asyncio.sleep(1)
    assert cluster.scheduler.waiting == 1
    cluster.workloads.on_workload(admit("edge"), admit())
    await asyncio.sleep(1)
    assert (cluster.pods, "uid-t" in cluster.parts.ledger) == (["t-1"], True)
    cluster.workloads.on_workload(admit(), evict())
    assert (cluster.scheduler.waiting, "uid-t" in cluster.parts.ledger) == (0, False)


def test_the_pod_of_a_task_asks_for_the_nodes_that_its_quota_is_for() -> None:
    toleration = {"key": "spot", "operator": "Exists"}
    template = {"spec": {"containers": [{"name": "llm"}], "nodeSelector": {"zone": "a"}}}
    update = PodUpdate((("tier", "edge"),), (toleration,))
    spec = build_pod(replace(make_task(template=template), update=update), 1, "perllm")["spec"]
    assert spec["nodeSelector"] == {"zone": "a", "tier": "edge"}
    assert spec["tolerations"] == [toleration]


def test_the_pod_of_a_task_carries_what_admission_checks_ask_for_but_none_of_our_own_names() -> None:
    metadata = {"labels": {"app": "llm"}, "annotations": {"note": "mine"}}
    template = {"metadata": metadata, "spec": {"containers": [{"name": "llm"}]}}
    labels = (("booked", "yes"), (names.TASK_LABEL, "another"))
    update = PodUpdate(labels=labels, annotations=(("consumes", "request-1"), (names.DEADLINE_ANNOTATION, "never")))
    pod = build_pod(replace(make_task(template=template), update=update), 1, "perllm")["metadata"]
    assert {"app": "llm", "booked": "yes", names.TASK_LABEL: "t"}.items() <= pod["labels"].items()
    assert {"note": "mine", "consumes": "request-1"}.items() <= pod["annotations"].items()
    assert pod["annotations"][names.DEADLINE_ANNOTATION] != "never"


async def test_a_task_that_kueue_evicts_is_stopped_and_then_gives_back_its_quota(cluster: QueueCluster) -> None:
    cluster.create(queue="team")
    cluster.workloads.on_workload(None, admit())
    cluster.api.store(WORKLOAD)
    await asyncio.sleep(2)
    cluster.bind()
    pod = read_pod(cluster.api.read(f"{PODS}/t-1") or {})
    cluster.workloads.on_workload(admit(), evict())
    await asyncio.sleep(1)
    assert [path for path, _ in cluster.api.calls_of("DELETE")] == [f"{PODS}/t-1"]
    assert cluster.conditions() == {}
    cluster.controller.on_pod(pod, None)
    await asyncio.sleep(1)
    assert (cluster.conditions()["QuotaReserved"], cluster.conditions()["Requeued"]) == ("False", "True")


async def test_the_quota_of_an_evicted_task_is_free_although_its_node_does_not_answer(cluster: QueueCluster) -> None:
    cluster.create(queue="team", deadline="1h")
    cluster.workloads.on_workload(None, admit())
    cluster.api.store(WORKLOAD)
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(status={"phase": "Running"})
    cluster.scheduler.put_node(replace(SILENT, answers_since_s=START_S + 2), Bandwidth(100e6, 0.0))
    cluster.workloads.on_workload(admit(), evict())
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:16:42Z"})
    await asyncio.sleep(MARGIN_S - 2)
    assert cluster.conditions()["QuotaReserved"] == "True"
    await asyncio.sleep(4)
    assert cluster.conditions()["QuotaReserved"] == "False"


async def test_a_task_that_ended_while_the_operator_was_away_frees_its_quota(cluster: QueueCluster) -> None:
    cluster.api.store(WORKLOAD)
    cluster.workloads.on_workload(None, admit())
    status = {"phase": "Rejected", "observedGeneration": 1, "receivedTime": "1970-01-01T00:16:40Z"}
    cluster.create(queue="team", status=status)
    await asyncio.sleep(1)
    assert cluster.conditions()["Finished"] == "True"


async def test_a_task_whose_end_only_kueue_knows_since_the_operator_died_before_it_was_stored_ends_again(
    cluster: QueueCluster,
) -> None:
    cluster.workloads.on_workload(None, make_workload({"QuotaReserved": True, "Admitted": True, "Finished": True}))
    cluster.create(queue="team", onInfeasible="Reject", tiers=["cloud"])
    await asyncio.sleep(2)
    assert cluster.status()["phase"] == "Rejected"


async def test_what_runs_goes_on_while_it_is_not_known_what_kueue_has_decided(cluster: QueueCluster) -> None:
    cluster.is_known = False
    cluster.start()
    cluster.api.store(names.task_path("lab", "t"), **task_object(queue="team"))
    cluster.pod(
        metadata={
            "namespace": "lab",
            "labels": {names.ATTEMPT_LABEL: "1"},
            "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
        },
        spec={"nodeName": "n"},
        status={"phase": "Running"},
    )
    cluster.create(queue="team", status={"podName": "t-1", "nodeName": "n", "attempts": 1, "phase": "Running"})
    await asyncio.sleep(1)
    assert cluster.api.calls_of("DELETE") == []


async def test_a_suspended_task_runs_once_it_is_not_suspended(cluster: QueueCluster) -> None:
    cluster.create(suspend=True)
    await asyncio.sleep(2)
    assert (cluster.pods, cluster.condition("Scheduled")["reason"]) == ([], "Suspended")
    item = cluster.api.store(names.task_path("lab", "t"), metadata={"generation": 2}, spec={"suspend": False})
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1"]


async def test_in_a_queue_kueue_decides_and_not_the_task(cluster: QueueCluster) -> None:
    cluster.create(queue="team", suspend=True)
    cluster.workloads.on_workload(None, admit())
    await asyncio.sleep(2)
    assert cluster.pods == ["t-1"]
