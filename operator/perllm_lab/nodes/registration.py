"""Node objects and leases: what a kubelet writes about its node."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from perllm.api.names import GPU_COUNT_LABEL, GPU_RESOURCE, GPU_TYPE_LABEL, TIER_LABEL
from perllm.cluster.client import ApiError, Client, PatchKind
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.clock import format_time

log = logging.getLogger(__name__)

Object = dict[str, Any]

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LEASE_S = 40
RENEW_S = 10.0
# A kubelet reports an unchanged status only this often; the lease is the heartbeat.
STATUS_EVERY_RENEWALS = 30
MIN_PODS = 110
MERGE_TYPE = PatchKind.STRATEGIC
RETRY_S = 1.0


def node_object(spec: NodeSpec, now: datetime) -> Object:
    """Return the Node with its labels; it advertises one `nvidia.com/gpu` per batch slot, as time-slicing does."""
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        TIER_LABEL: spec.tier,
        GPU_TYPE_LABEL: spec.gpu.product,
    }
    if spec.gpus > 1:
        labels[GPU_COUNT_LABEL] = str(spec.gpus)
    metadata = {"name": spec.name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": node_status(spec, now)}


def node_status(spec: NodeSpec, now: datetime) -> Object:
    """Return the status of a node that is ready."""
    resources = {
        "cpu": str(spec.gpu.cpus),
        "memory": f"{spec.gpu.memory_gib}Gi",
        "pods": str(MIN_PODS + spec.slots),
        GPU_RESOURCE: str(spec.slots),
    }
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "Hostname", "address": spec.name}],
        "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64", "kubeletVersion": "simulated"},
        "conditions": [
            _condition("Ready", "True", "KubeletReady", now),
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", now),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", now),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID", now),
        ],
    }


class Powered(Protocol):
    """Something that can be switched off."""

    is_up: bool


class Registrar:
    """Keeps Node and Lease objects of simulated nodes alive."""

    def __init__(self, client: Client, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._client = client
        self._wall = wall

    async def register(self, spec: NodeSpec) -> None:
        """Create the node, or update it when it exists, and take its lease.

        Raises:
            ApiError: the API server denies it or cannot be reached.
        """
        node = node_object(spec, self._wall())
        try:
            await self._client.post(NODES, node)
        except ApiError as error:
            if error.status != 409:
                raise
            labels = {"metadata": {"labels": node["metadata"]["labels"]}}
            await self._client.patch(f"{NODES}/{spec.name}", labels, kind=MERGE_TYPE)
            await self._report(spec)
        await self._renew(spec)

    async def keep_alive(self, spec: NodeSpec, node: Powered, offset_s: float) -> None:
        """Renew the lease every 10 s while the node is up, starting at `offset_s` so that nodes take turns."""
        await asyncio.sleep(offset_s)
        beats, failures = 0, 0
        while True:
            if node.is_up:
                beats += 1
                failures = await self._beat(spec, failures, report=beats % STATUS_EVERY_RENEWALS == 0)
            await asyncio.sleep(RETRY_S if failures else RENEW_S)

    async def _beat(self, spec: NodeSpec, failures: int, *, report: bool) -> int:
        """Renew the lease and return how many times in a row that has failed."""
        try:
            await self._renew(spec)
            if report:
                await self._report(spec)
        except ApiError as error:
            log.log(logging.DEBUG if failures else logging.WARNING, "lease of %s not renewed: %s", spec.name, error)
            return failures + 1
        return 0

    async def _renew(self, spec: NodeSpec) -> None:
        renewal = {
            "holderIdentity": spec.name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._client.patch(f"{LEASES}/{spec.name}", {"spec": renewal})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._client.post(LEASES, {"metadata": {"name": spec.name}, "spec": renewal})

    async def _report(self, spec: NodeSpec) -> None:
        status = node_status(spec, self._wall())
        await self._client.patch(f"{NODES}/{spec.name}/status", {"status": status}, kind=MERGE_TYPE)


def _condition(kind: str, value: str, reason: str, now: datetime) -> Object:
    moment = format_time(now)
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": "simulated",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
