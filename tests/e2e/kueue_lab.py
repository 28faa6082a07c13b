"""A lab with the real Kueue, and queues in it."""

from e2e.stage import Stage, condition, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.kueue.workload import API_VERSION
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import Lab
from programs.kueue import start_kueue

QUEUES = f"/apis/{API_VERSION}"
SERVED = "perllm.io/served-tasks"
QUOTA = {"cpu": "100", "memory": "100Gi", names.GPU_RESOURCE: "1", SERVED: "1"}


class KueueLab(Lab):
    """A lab with Kueue."""

    _kueue: Process | None = None

    async def start_operator(self) -> None:
        if self._kueue is None:
            self._kueue = await start_kueue(self.control_plane, self.client, self.folder / "kueue")
            self._stack.push_async_callback(self._kueue.stop)
        await super().start_operator()


async def create_queue(stage: Stage) -> str:
    """Create a queue with quota for one task, on edge nodes; it and its ClusterQueue have the stage's name."""
    client, name = stage.lab.client, stage.namespace
    await client.post(f"{QUEUES}/resourceflavors", _flavor(name))
    await client.post(f"{QUEUES}/clusterqueues", _cluster_queue(name))
    local = _object("LocalQueue", name, {"clusterQueue": name})
    await client.post(f"{QUEUES}/namespaces/{stage.namespace}/localqueues", local)

    async def is_active() -> bool:
        queue = await client.get(f"{QUEUES}/clusterqueues/{name}")
        return condition(queue, "Active").get("status") == "True"

    await wait_until(is_active, timeout_s=30.0)
    return name


async def delete_queue(stage: Stage) -> None:
    """Delete what `create_queue` has created that is in no namespace."""
    await stage.lab.client.delete(f"{QUEUES}/clusterqueues/{stage.namespace}")


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _flavor(name: str) -> Object:
    return _object("ResourceFlavor", name, {"nodeLabels": {names.TIER_LABEL: "edge"}})


def _cluster_queue(name: str) -> Object:
    resources = [{"name": resource, "nominalQuota": quota} for resource, quota in QUOTA.items()]
    group = {"coveredResources": list(QUOTA), "flavors": [{"name": name, "resources": resources}]}
    return _object(
        "ClusterQueue",
        name,
        {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [group],
        },
    )
