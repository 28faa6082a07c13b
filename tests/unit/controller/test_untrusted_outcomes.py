"""What nodes and users report, which may be wrong or forged."""

import asyncio

import pytest

from perllm.api import names
from perllm.cluster.times import format_time
from perllm.energy.settlement import SETTLING_S
from unit.controller.one_node_cluster import Cluster, container

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("skew_s", [-120, 120])
async def test_a_node_whose_clock_is_wrong_is_named_and_not_believed(cluster: Cluster, skew_s: int) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.pod(metadata={"creationTimestamp": "1970-01-01T00:16:42Z"}, status={"phase": "Pending"})
    cluster.bind()
    started = {"startedAt": format_time(1002 + skew_s)}
    cluster.pod(status={"phase": "Running", "containerStatuses": [container({"running": started})]})
    await asyncio.sleep(8)
    ended = {**started, "exitCode": 0, "finishedAt": format_time(1010 + skew_s)}
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": [container({"terminated": ended})]})
    await asyncio.sleep(SETTLING_S + 1)
    observed = cluster.status()["observed"]
    assert (observed["latency"], observed["energyQuality"]) == (10.0, "coarse")
    assert abs(cluster.metric("perllm_node_clock_skew_seconds", node="n") - skew_s) <= 1
    summary = cluster.parts.learner.summaries("n")["m"]
    assert (summary.count, summary.latency_s) == (1, 10.0)


async def test_a_forged_record_teaches_nothing_and_is_counted(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind(model="somebody-elses")
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 31)
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.parts.learner.summaries("n") == {}
    assert cluster.metric("perllm_outcomes_refused_total", reason="decision") == 1


async def test_a_record_that_is_changed_while_the_task_runs_changes_nothing(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(metadata={"annotations": {names.DECISION_ANNOTATION: "forged"}})
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(8.5)
    cluster.finish()
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(SETTLING_S + 1)
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_an_impossible_outcome_teaches_nothing_and_is_counted_once(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
    said = {**ended, "message": '{"outputTokens": 0, "text": "Blue."}'}
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": [container({"terminated": said})]})
    await asyncio.sleep(SETTLING_S + 5)
    assert cluster.parts.learner.summaries("n") == {}
    assert cluster.metric("perllm_outcomes_refused_total", reason="tokens") == 1
