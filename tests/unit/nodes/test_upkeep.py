from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.nodes.upkeep import NodeUpkeep
from perllm.scheduling.loop import DispatchLoop
from perllm.settings.nodes import NodeSettings
from perllm.telemetry.snapshot import Snapshot
from unit.cluster.queues import make_guard
from unit.scheduling.schedulers import make_scheduler

LABELS = {names.TIER_LABEL: "edge", names.GPU_TYPE_LABEL: "T4"}
GPUS = {names.GPU_RESOURCE: "1"}


def make_upkeep(on_joined: Callable[[], None] = lambda: None) -> NodeUpkeep:
    made = make_scheduler(now_s=lambda: 0.0)
    health = NodeHealth(
        made.scheduler,
        made.parts.circuits,
        OperatorMetrics(CollectorRegistry()),
        show=lambda *_: None,
        now_s=lambda: 0.0,
        unix_now=lambda: 0.0,
    )
    return NodeUpkeep(
        made.scheduler,
        made.parts.fleet,
        NodeSettings(),
        health=health,
        snapshot=lambda: Snapshot({}),
        guard=make_guard(),
        on_gone=lambda _: None,
        on_joined=on_joined,
    )


def gpu_node(**labels: str) -> dict[str, Any]:
    metadata = {"name": "gpu", "uid": "g", "labels": LABELS | labels}
    return {"metadata": metadata, "spec": {}, "status": {"allocatable": GPUS}}


async def test_news_of_nodes_without_gpus_examines_no_waiting_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    examined: list[DispatchLoop] = []
    monkeypatch.setattr(DispatchLoop, "examine_all", lambda loop: examined.append(loop))
    upkeep = make_upkeep()
    plain: dict[str, Any] = {"metadata": {"name": "plain", "uid": "u"}, "spec": {}, "status": {}}
    assert upkeep.read(plain) is None
    assert examined == []
    upkeep.on_node(None, upkeep.read(gpu_node()))
    assert len(examined) == 1


def test_that_a_node_joins_is_reported_once_and_again_after_it_has_left() -> None:
    joined: list[str] = []
    upkeep = make_upkeep(lambda: joined.append("gpu"))
    node, changed = upkeep.read(gpu_node()), upkeep.read(gpu_node(zone="a"))
    upkeep.on_node(None, node)
    upkeep.on_node(node, changed)
    assert joined == ["gpu"]
    upkeep.on_node(changed, None)
    upkeep.on_node(None, node)
    assert joined == ["gpu", "gpu"]
