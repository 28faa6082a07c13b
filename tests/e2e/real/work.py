"""Tasks for the simulated nodes, and their outcomes."""

from collections import Counter
from collections.abc import Callable

from e2e.real.cluster import SPEED, RealCluster
from e2e.stage import wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.trace_replay import TraceReplay, as_tasks
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request

INTERVAL_S = 0.2


def open_replay(cluster: RealCluster, namespace: str, count: int, *, interval_s: float = INTERVAL_S) -> TraceReplay:
    """Return a replay of tasks that arrive at even intervals."""
    at_s = [number * interval_s * SPEED for number in range(count)]
    requests = [
        Request(f"task-{number:02d}", cluster.scenario.model, at_s[number], 200, 100, 1000, 120.0)
        for number in range(count)
    ]
    return TraceReplay(cluster.client, as_tasks(namespace, SPEED), requests, SPEED)


def make_long_task(cluster: RealCluster, namespace: str) -> Object:
    """Return a task that runs for minutes: longer than an upgrade takes on a busy machine."""
    return task_manifest(Request("long", cluster.scenario.model, 0.0, 200, 100_000, 1000, 120.0), namespace=namespace)


async def wait_learned(
    cluster: RealCluster, *, instance: str = "", served: Callable[[str], bool] = lambda namespace: True
) -> None:
    """Wait until an operator has learned each succeeded task of its namespaces once, on the node where it ran."""
    tasks = (await cluster.client.get(names.tasks_path()))["items"]
    own = (task["status"] for task in tasks if served(task["metadata"]["namespace"]))
    where = Counter(status["nodeName"] for status in own if status["phase"] == "Succeeded")
    learned = Counter[str]()

    async def is_learned() -> bool:
        nonlocal learned
        learned = await _count_outcomes(cluster, instance)
        return learned == where

    await wait_until(is_learned, timeout_s=30, describe=lambda: f"{dict(where)}, learned: {dict(learned)}")


async def _count_outcomes(cluster: RealCluster, instance: str) -> Counter[str]:
    """Return how many outcomes an operator has learned, by node."""
    selector = f"{names.INSTANCE_LABEL}={instance}" if instance else f"!{names.INSTANCE_LABEL}"
    profiles = (await cluster.client.get(names.node_profiles_path(), labelSelector=selector))["items"]
    counts = {item["metadata"]["name"]: (item.get("status") or {}).get("outcomes", 0) for item in profiles}
    return Counter({name.removeprefix(f"{instance}."): count for name, count in counts.items()})
