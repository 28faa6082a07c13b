"""When the dispatcher decides: after what has happened, and when something is due."""

import asyncio

import pytest

from unit.controller.one_node_cluster import Cluster, run_through

pytestmark = pytest.mark.looptime


async def test_there_are_no_rounds_while_there_is_nothing_to_decide(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, rounds_s = cluster.scheduler.due, list[float]()
    monkeypatch.setattr(cluster.scheduler, "due", lambda: rounds_s.append(cluster.now_s()) or due())
    await run_through(cluster)
    rounds_s.clear()
    await asyncio.sleep(10)
    # Reservations are refreshed twice a second, which is an input.
    assert len(rounds_s) <= 21
