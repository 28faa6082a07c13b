"""Pods name the nodes that they may be placed on; one that fits on none of them is replaced."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.pod import Misfit, read_pod
from perllm.cluster.pod_ends import FIT_PATIENCE_S
from perllm.cluster.times import format_time
from perllm.controller.narrowing import MAX_TERMS, narrow
from perllm.controller.reconciler import PROGRESS_DELAY_S
from perllm.controller.settings import ControllerSettings
from unit.controller.one_node_cluster import PODS, START_S, Cluster

POD = f"{PODS}/t-1"
ON_LINUX = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
NOT_ON_B = {"key": "metadata.name", "operator": "NotIn", "values": ["b"]}


def name_of(node: str) -> dict[str, Any]:
    return {"key": "metadata.name", "operator": "In", "values": [node]}


def affinity(*terms: Any, **others: Any) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": {**required, **others}}}


class TestAffinity:
    def test_has_one_term_for_each_node(self) -> None:
        spec = {"containers": [], "nodeSelector": {"zone": "x"}}
        expected = affinity({"matchFields": [name_of("a")]}, {"matchFields": [name_of("b")]})
        assert narrow(spec, (), ["a", "b"]) == spec | expected

    def test_of_the_user_is_crossed_with_the_names(self) -> None:
        terms = {"matchExpressions": [ON_LINUX]}, {"matchFields": [NOT_ON_B]}
        expected = affinity(
            {"matchExpressions": [ON_LINUX], "matchFields": [name_of("a")]},
            {"matchExpressions": [ON_LINUX], "matchFields": [name_of("b")]},
            {"matchFields": [NOT_ON_B, name_of("a")]},
            {"matchFields": [NOT_ON_B, name_of("b")]},
        )
        assert narrow(affinity(*terms), (), ["a", "b"]) == expected

    def test_keeps_what_is_not_about_required_nodes(self) -> None:
        preferred: dict[str, Any] = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}
        spec = {"affinity": {"podAntiAffinity": {"x": []}, "nodeAffinity": preferred}}
        narrowed = narrow(spec, (), ["a"])
        assert narrowed is not None
        assert narrowed["affinity"]["podAntiAffinity"] == {"x": []}
        assert narrowed["affinity"]["nodeAffinity"].items() > preferred.items()

    def test_does_not_make_a_term_hold_that_never_does(self) -> None:
        assert narrow(affinity({}, {"matchExpressions": [ON_LINUX]}), (), ["a"]) == affinity(
            {"matchExpressions": [ON_LINUX], "matchFields": [name_of("a")]}
        )

    @pytest.mark.parametrize(
        "spec",
        [
            affinity(*[{"matchExpressions": [ON_LINUX]}] * (MAX_TERMS // 2 + 1)),
            affinity({}),
            affinity("linux"),
            affinity({"matchFields": "a"}),
            {"affinity": "a"},
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": "a"}}},
            {"schedulingGates": [{"name": "quota"}]},
        ],
        ids=["too long", "never holds", "no term", "no fields", "no affinity", "not required", "gated"],
    )
    def test_stays_as_it_is_where_it_cannot_be_narrowed(self, spec: dict[str, Any]) -> None:
        before = copy.deepcopy(spec)
        assert narrow(spec, (), ["a", "b"]) is None
        assert spec == before

    def test_stays_as_it_is_if_kueue_will_gate_the_pod(self) -> None:
        assert narrow({}, ["app"], ["a"]) is not None
        assert narrow({}, ["app", "kueue.x-k8s.io/queue-name"], ["a"]) is None

    def test_needs_nodes(self) -> None:
        assert narrow({}, (), []) is None


class NarrowedCluster(Cluster):
    """A cluster whose pods name their nodes, and whose API server retains pods with finalizers."""

    settings = ControllerSettings(named_nodes=4)

    def report_misfit(self) -> None:
        """Have kube-scheduler find no room for the pod on the nodes that it names."""
        since = format_time(self.now_s())
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": since}
        self.pod(status={"phase": "Pending", "conditions": [condition]})

    def report_deleting(self) -> None:
        self.pod(metadata={"deletionTimestamp": format_time(self.now_s())})

    @property
    def named(self) -> list[str | None]:
        """The names in every pod that was created."""
        pods = (body for path, body in self.api.calls_of("POST") if path == PODS)
        return [pod["metadata"]["annotations"].get(names.NAMED_NODES_ANNOTATION) for pod in pods]


@pytest.fixture
async def cluster() -> AsyncIterator[NarrowedCluster]:
    cluster = NarrowedCluster()
    yield cluster
    cluster.stop()


async def become_misfit(cluster: NarrowedCluster) -> dict[str, Any]:
    """Let the first pod of task t fit nowhere, for long enough; return the pod as it was last."""
    cluster.create()
    await asyncio.sleep(0.1)
    cluster.report_misfit()
    pod = cluster.api.read(POD)
    assert pod is not None
    await asyncio.sleep(FIT_PATIENCE_S + 0.1)
    return pod


@pytest.mark.looptime
class TestMisfit:
    async def test_is_given_time_to_fit_after_all(self, cluster: NarrowedCluster) -> None:
        cluster.create()
        await asyncio.sleep(0.1)
        cluster.report_misfit()
        await asyncio.sleep(FIT_PATIENCE_S - 0.2)
        assert cluster.api.calls_of("DELETE") == []
        cluster.bind()
        await asyncio.sleep(FIT_PATIENCE_S)
        assert cluster.api.calls_of("DELETE") == []

    async def test_is_deleted_unless_it_has_changed(self, cluster: NarrowedCluster) -> None:
        pod = await become_misfit(cluster)
        expected = {"uid": pod["metadata"]["uid"], "resourceVersion": pod["metadata"]["resourceVersion"]}
        assert [body["preconditions"] for _, body in cluster.api.calls_of("DELETE")] == [expected]

    async def test_is_replaced_by_a_pod_for_all_nodes_that_is_the_same_attempt(self, cluster: NarrowedCluster) -> None:
        pod = await become_misfit(cluster)
        assert cluster.pods == ["t-1"]
        cluster.api.store(POD, **pod)
        cluster.report_deleting()
        await asyncio.sleep(1.0)
        assert (cluster.status()["attempts"], cluster.status()["phase"]) == (0, "Pending")
        released = cluster.api.read(POD)
        assert released is not None
        assert released["metadata"]["finalizers"] == []
        cluster.lose_pod()
        await asyncio.sleep(0.1)
        assert (cluster.pods, cluster.named) == (["t-1", "t-1"], ["n", None])
        assert cluster.metric("perllm_pods_replaced_total") == 1
        cluster.pod(status={"phase": "Pending"})
        await asyncio.sleep(PROGRESS_DELAY_S + 0.1)
        assert (cluster.status()["attempts"], cluster.status().get("failedAttempts")) == (1, None)

    async def test_holds_no_slots_and_is_not_charged(self, cluster: NarrowedCluster) -> None:
        await become_misfit(cluster)
        assert len(cluster.parts.ledger) == 0
        assert cluster.scheduler.waiting == 0

    async def test_is_no_attempt_after_a_restart_either(self, cluster: NarrowedCluster) -> None:
        pod = await become_misfit(cluster)
        cluster.stop()
        cluster.api.store(POD, **pod)
        cluster.api.store(names.task_path("lab", "t"), status={"attempts": 1})
        restarted = NarrowedCluster(cluster.api, cluster.begun_s)
        restarted.start()
        restarted.report_deleting()
        item = cluster.api.read(names.task_path("lab", "t"))
        assert item is not None
        restarted.controller.on_task(item, deleted=False)
        await asyncio.sleep(1.0)
        restarted.lose_pod()
        await asyncio.sleep(1.5)
        assert restarted.pods[-1] == "t-1"
        restarted.stop()

    async def test_that_was_placed_in_the_meantime_counts(self, cluster: NarrowedCluster) -> None:
        pod = await become_misfit(cluster)
        cluster.api.store(POD, **pod)
        cluster.bind()
        cluster.report_deleting()
        await asyncio.sleep(0.1)
        assert cluster.pods == ["t-1", "t-2"]


def test_only_a_pod_that_names_nodes_and_waits_for_no_other_can_be_a_misfit() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "lastTransitionTime": format_time(START_S),
    }
    owner = {"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}
    metadata = {"name": "t-1", "namespace": "lab", "uid": "u", "ownerReferences": [owner], "resourceVersion": "7"}
    item = {"metadata": metadata, "status": {"conditions": [condition]}}
    narrowed = {**item, "metadata": {**metadata, "annotations": {names.NAMED_NODES_ANNOTATION: "n"}}}
    placed = {**narrowed, "spec": {"nodeName": "n"}}
    preempting = {**narrowed, "status": {"conditions": [condition], "nominatedNodeName": "n"}}
    pods = [read_pod(one) for one in (narrowed, item, placed, preempting)]
    assert [pod and pod.misfit for pod in pods] == [Misfit(START_S, "7"), None, None, None]
