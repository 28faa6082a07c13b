"""Pods that are being deleted on nodes that do not answer: they may still be running there."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from perllm.api import names
from perllm.cluster.pod_ends import MARGIN_S, RETURN_S, PodPatience, doubt_end, next_look_s
from perllm.controller.drift import GRACE_S, INTERVAL_S
from perllm.controller.retention import Records, may_release
from perllm.controller.settings import ControllerSettings
from perllm.placement.fleet import Bandwidth
from unit.controller.one_node_cluster import START_S, Cluster
from unit.controller.samples import running
from unit.controller.test_retention import RETRIED
from unit.placement.cluster_of import make_node

AWAY_S = 600.0
SHORT_S = 50.0
PATIENCE = PodPatience(away_s=AWAY_S)
SILENT = replace(make_node("n", slots=2, is_open=False), answers=False, answers_since_s=1010.0)
DELETING = running(is_deleting=True, gone_by_s=1040.0)


class TestPatience:
    def test_is_counted_from_when_the_node_stopped_answering(self) -> None:
        assert doubt_end(DELETING, SILENT, PATIENCE, 1609.9).may_run_until_s == 1610.0
        assert doubt_end(DELETING, SILENT, PATIENCE, 1610.0).may_run_until_s is None

    def test_is_counted_from_the_last_report_about_the_pod_if_that_is_later(self) -> None:
        heard = replace(DELETING, heard_s=1300.0)
        assert doubt_end(heard, SILENT, PATIENCE, 1700.0).may_run_until_s == 1900.0

    def test_ends_soon_after_the_node_answers_again(self) -> None:
        back = replace(SILENT, answers=True, answers_since_s=1200.0)
        assert doubt_end(DELETING, back, PATIENCE, 1201.0).may_run_until_s == 1200.0 + RETURN_S

    def test_is_none_unless_it_is_configured(self) -> None:
        assert doubt_end(DELETING, SILENT, PodPatience(), 1011.0).may_run_until_s is None

    @pytest.mark.parametrize("node", [None, make_node("n")], ids=["gone", "never reported"])
    def test_is_none_for_a_node_that_nothing_is_known_of(self, node: None) -> None:
        assert doubt_end(DELETING, node, PATIENCE, 1011.0) == DELETING

    def test_retains_the_pod_whose_end_may_still_be_seen(self) -> None:
        records = Records(RETRIED, is_stored=True)
        doubted = doubt_end(DELETING, SILENT, PATIENCE, 1600.0)
        assert not may_release(doubted, records, 1600.0)
        assert may_release(doubt_end(DELETING, SILENT, PATIENCE, 1610.0), records, 1610.0)


class TestSlots:
    def test_are_given_up_when_the_pod_should_have_been_gone(self) -> None:
        for patience in (PATIENCE, PodPatience()):
            assert not doubt_end(DELETING, SILENT, patience, 1039.9 + MARGIN_S).has_left_slots
            assert doubt_end(DELETING, SILENT, patience, 1040.0 + MARGIN_S).has_left_slots

    def test_are_held_on_a_node_that_answers(self) -> None:
        assert not doubt_end(DELETING, replace(SILENT, answers=True), PATIENCE, 9999.0).has_left_slots

    def test_and_patience_are_looked_at_when_they_end(self) -> None:
        doubted = doubt_end(DELETING, SILENT, PATIENCE, 1041.0)
        assert next_look_s(doubted, PATIENCE, 1060.0, 1041.0) == 1040.0 + MARGIN_S
        assert next_look_s(doubted, PATIENCE, 1060.0, 1040.0 + MARGIN_S) == 1610.0


class PatientCluster(Cluster):
    settings = ControllerSettings(patience=PodPatience(away_s=SHORT_S))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = PatientCluster()
    yield cluster
    cluster.stop()


async def delete_on_silent_node(cluster: Cluster) -> None:
    """Let the pod of a task be deleted at 1002 s, on a node that has not answered since then."""
    cluster.create(deadline="1h")
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(status={"phase": "Running"})
    silent = replace(SILENT, answers_since_s=START_S + 2)
    cluster.scheduler.put_node(silent, Bandwidth(100e6, 0.0))
    cluster.scheduler.put_node(make_node("other"), Bandwidth(100e6, 0.0))
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:16:42Z"})


@pytest.mark.looptime
async def test_a_task_is_not_run_again_before_the_patience_is_over(cluster: Cluster) -> None:
    await delete_on_silent_node(cluster)
    await asyncio.sleep(SHORT_S - 1)
    assert cluster.pods == ["t-1"]
    assert "node n does not answer, and pod t-1 may still be running there" in cluster.status()["message"]
    assert cluster.status()["phase"] == "Running"
    await asyncio.sleep(2)
    assert cluster.pods == ["t-1", "t-2"]


@pytest.mark.looptime
@pytest.mark.parametrize(("own_grace_s", "pods"), [(None, ["t-1", "t-2"]), (0, ["t-1"])])
async def test_a_pod_that_is_deleted_by_force_is_gone_unless_it_has_no_grace_period_anyway(
    cluster: Cluster, own_grace_s: int | None, pods: list[str]
) -> None:
    await delete_on_silent_node(cluster)
    await asyncio.sleep(5)
    cluster.pod(metadata={"deletionGracePeriodSeconds": 0}, spec={"terminationGracePeriodSeconds": own_grace_s})
    await asyncio.sleep(1)
    assert cluster.pods == pods


@pytest.mark.looptime
async def test_a_task_that_was_suspended_meanwhile_is_not_run_again_before_that_either(cluster: Cluster) -> None:
    await delete_on_silent_node(cluster)
    for generation, is_suspended in ((2, True), (3, False)):
        await asyncio.sleep(2)
        change = {"metadata": {"generation": generation}, "spec": {"suspend": is_suspended}}
        cluster.controller.on_task(cluster.api.store(names.task_path("lab", "t"), **change), deleted=False)
    await asyncio.sleep(SHORT_S - 5)
    assert cluster.pods == ["t-1"]
    assert "node n does not answer, and pod t-1 may still be running there" in cluster.status()["message"]
    await asyncio.sleep(2)
    assert cluster.pods == ["t-1", "t-2"]


@pytest.mark.looptime
async def test_its_slots_are_free_long_before_that(cluster: Cluster) -> None:
    await delete_on_silent_node(cluster)
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(MARGIN_S + 1)
    assert (cluster.pods, len(cluster.parts.ledger)) == (["t-1"], 0)
    await asyncio.sleep(GRACE_S + 2 * INTERVAL_S)
    assert cluster.metric("perllm_ledger_drift") == 0


@pytest.mark.looptime
async def test_a_pod_that_worked_on_while_its_node_was_away_counts(cluster: Cluster) -> None:
    await delete_on_silent_node(cluster)
    await asyncio.sleep(10)
    cluster.finish()
    await asyncio.sleep(1)
    assert (cluster.pods, cluster.status()["phase"]) == (["t-1"], "Succeeded")
