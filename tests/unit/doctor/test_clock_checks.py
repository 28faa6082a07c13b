from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.times import format_time
from perllm.doctor.clocks import NodeClocks, check_clocks
from perllm.doctor.finding import Finding, Level
from unit.doctor.cluster_objects import NOW_S, Object

CREATED_S = NOW_S - 20


def pod_on(node: str, skew_s: float, *, started_s: float = 2.0) -> Object:
    """Return a pod that ran for 8 s on a node whose clock is ahead, and ended when the API server was told."""
    begun_s = CREATED_S + started_s
    terminated = {
        "exitCode": 0,
        "startedAt": format_time(begun_s + skew_s),
        "finishedAt": format_time(begun_s + 8 + skew_s),
    }
    metadata: dict[str, Any] = {
        "name": "t-1",
        "namespace": "a",
        "uid": f"uid-{node}",
        "creationTimestamp": format_time(CREATED_S),
        "ownerReferences": [{"kind": names.TASK_KIND, "name": "t", "uid": "uid-t"}],
        "managedFields": [{"subresource": "status", "time": format_time(begun_s + 8.5)}],
    }
    return {
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [{"name": "llm"}]},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "llm", "state": {"terminated": terminated}}]},
    }


def check(*pods: Object) -> Finding:
    clocks = NodeClocks()
    for pod in pods:
        clocks.see(pod)
    return check_clocks(clocks)


@pytest.mark.parametrize("skew_s", [0.0, 1.5, -1.5])
def test_clocks_that_may_be_right_are_fine(skew_s: float) -> None:
    finding = check(pod_on("a", skew_s), {"metadata": {"name": "no task's"}})
    assert finding.level is Level.OK


def test_nodes_with_wrong_clocks_are_named() -> None:
    finding = check(pod_on("slow", -122.0), pod_on("right", 0.0), pod_on("fast", 120.5))
    assert finding.level is Level.WARN
    assert "wrong on fast (at least 120 s ahead), slow (at least 120 s behind)" in finding.message
