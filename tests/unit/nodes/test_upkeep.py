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


async def test_news_of_nodes_without_gpus_examines_no_waiting_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    examined: list[DispatchLoop] = []
    monkeypatch.setattr(DispatchLoop, "examine_all", lambda loop: examined.append(loop))
    made = make_scheduler(now_s=lambda: 0.0)
    upkeep = NodeUpkeep(
        made.scheduler,
        made.parts.fleet,
        NodeSettings(),
        health=NodeHealth(
            made.scheduler,
            made.parts.circuits,
            OperatorMetrics(CollectorRegistry()),
            show=lambda *_: None,
            now_s=lambda: 0.0,
            unix_now=lambda: 0.0,
        ),
        snapshot=lambda: Snapshot({}),
        guard=make_guard(),
        on_gone=lambda _: None,
    )
    plain: dict[str, Any] = {"metadata": {"name": "plain", "uid": "u"}, "spec": {}, "status": {}}
    assert upkeep.read(plain) is None
    assert examined == []
    gpus = {"metadata": {"name": "gpu", "uid": "g", "labels": LABELS}, "spec": {}, "status": {"allocatable": GPUS}}
    upkeep.on_node(None, upkeep.read(gpus))
    assert len(examined) == 1
