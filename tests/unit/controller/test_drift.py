"""Differences between the ledger and the pods."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from perllm.api.task_status import TaskStatus
from perllm.cluster.client import WATCH_SILENCE_S
from perllm.controller.drift import GRACE_S, INTERVAL_S, DriftMonitor
from perllm.controller.pod_accounts import PodAccounts
from perllm.controller.tracking import Tracking
from perllm.metrics import OperatorMetrics
from perllm.slices import SLICE_S
from unit.controller.one_node_cluster import Cluster
from unit.controller.samples import make_own_decision, make_task

pytestmark = pytest.mark.looptime

DRIFT = "perllm_ledger_drift"
REPAIRS = "perllm_ledger_repairs_total"

STEP_S = 0.001


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
    await cluster.control.drift.compare()
    await asyncio.sleep(GRACE_S)
    await cluster.control.drift.compare()
    assert cluster.metric(DRIFT) == 1


async def test_a_pod_that_is_not_counted_is_counted_again(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.bind()
    cluster.scheduler.drop("uid-t")
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(GRACE_S + 2 * INTERVAL_S)
    assert list(cluster.parts.ledger.confirmed) == ["uid-t"]


async def test_a_flight_whose_pod_cannot_be_watched_is_kept_until_the_watch_has_caught_up(cluster: Cluster) -> None:
    cluster.start()
    cluster.sees_pods = False
    cluster.scheduler.confirm(make_own_decision(task_id="bound unseen"), 1.0)
    await asyncio.sleep(10 * GRACE_S)
    cluster.sees_pods = True
    await asyncio.sleep(GRACE_S - 1)
    assert (len(cluster.parts.ledger), cluster.metric(REPAIRS)) == (1, 0)
    await asyncio.sleep(1 + 2 * INTERVAL_S)
    assert len(cluster.parts.ledger) == 0


def test_a_watch_whose_silence_is_not_noticed_yet_is_no_drift() -> None:
    assert GRACE_S > WATCH_SILENCE_S


async def test_what_is_in_flight_is_left_alone(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.bind()
    placed = cluster.parts.ledger.placed
    await asyncio.sleep(10 * GRACE_S)
    assert cluster.parts.ledger.placed == placed
    assert cluster.metric(REPAIRS) == 0


class Comparison:
    """A monitor by whose clock each reading takes a millisecond, and which sees `tasks` tasks without pods."""

    def __init__(self, cluster: Cluster, tasks: int = 0) -> None:
        tracking, accounts, registry = Tracking(), SimpleNamespace(find_flight=lambda _: None), CollectorRegistry()
        for number in range(tasks):
            tracking.add(make_task(name=f"t{number}"), TaskStatus())
        self.steps = itertools.count()
        self.metrics = OperatorMetrics(registry)
        self.monitor = DriftMonitor(
            tracking,
            cast(PodAccounts, accounts),
            cluster.parts.ledger,
            cluster.parts.fleet,
            cluster.scheduler,
            is_annotated=lambda _: False,
            sees_pods=lambda: True,
            metrics=self.metrics,
            now_s=lambda: STEP_S * next(self.steps),
        )
        self.find_metric = registry.get_sample_value

    async def count_turns(self) -> int:
        """Compare once and return how often others had the event loop meanwhile."""
        comparison, turns = asyncio.create_task(self.monitor.compare()), 0
        while not comparison.done():
            await asyncio.sleep(0)
            turns += 1
        return turns


async def test_tasks_and_flights_are_compared_in_slices(cluster: Cluster) -> None:
    turns = await Comparison(cluster, tasks=100).count_turns()
    assert turns >= 100 * STEP_S / (2 * SLICE_S)
    for number in range(100):
        cluster.scheduler.confirm(make_own_decision(task_id=f"ghost{number}"), 1.0)
    assert await Comparison(cluster).count_turns() >= turns


async def test_a_flight_that_ends_while_others_are_compared_is_not_repaired(cluster: Cluster) -> None:
    for number in range(100):
        cluster.scheduler.confirm(make_own_decision(task_id=f"ghost{number}"), 1.0)
    compared = Comparison(cluster)
    await compared.monitor.compare()
    compared.steps = itertools.count(int(2 * GRACE_S / STEP_S))
    comparison = asyncio.create_task(compared.monitor.compare())
    await asyncio.sleep(0)
    for number in range(100):
        cluster.scheduler.drop(f"ghost{number}")
    await comparison
    assert 0 < (compared.find_metric(REPAIRS) or 0.0) <= SLICE_S / STEP_S
