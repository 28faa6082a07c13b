"""Differences between the ledger and the pods."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perllm.controller.drift import GRACE_S, INTERVAL_S
from unit.controller.one_node_cluster import Cluster
from unit.controller.samples import make_own_decision

pytestmark = pytest.mark.looptime

DRIFT = "perllm_ledger_drift"
REPAIRS = "perllm_ledger_repairs_total"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


async def test_a_flight_without_a_pod_is_dropped_after_a_while(cluster: Cluster) -> None:
    cluster.start()
    cluster.scheduler.confirm(make_own_decision(task_id="ghost"), 1.0)
    await asyncio.sleep(GRACE_S - 1)
    assert (len(cluster.parts.ledger), cluster.metric(DRIFT)) == (1, 0)
    await asyncio.sleep(1 + 2 * INTERVAL_S)
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(INTERVAL_S)
    assert cluster.metric(DRIFT) == 0
    assert cluster.metric(REPAIRS) == 1, "the drift is over before it would be scraped"


async def test_drift_is_shown_while_it_is_being_repaired(cluster: Cluster) -> None:
    cluster.scheduler.confirm(make_own_decision(task_id="ghost"), 1.0)
    cluster.control.drift.compare()
    await asyncio.sleep(GRACE_S)
    cluster.control.drift.compare()
    assert cluster.metric(DRIFT) == 1


async def test_a_pod_that_is_not_counted_is_counted_again(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.bind()
    cluster.scheduler.drop("uid-t")
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(GRACE_S + 2 * INTERVAL_S)
    assert list(cluster.parts.ledger.confirmed) == ["uid-t"]


async def test_what_is_in_flight_is_left_alone(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.bind()
    placed = cluster.parts.ledger.placed
    await asyncio.sleep(10 * GRACE_S)
    assert cluster.parts.ledger.placed == placed
    assert cluster.metric(REPAIRS) == 0
