"""What PerLLM needs to know about a Kubernetes node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perllm.api import names
from perllm.api.quantities import parse_amount, parse_quantity
from perllm.api.task import Tier
from perllm.cluster.client import Object

UNKNOWN_GPU = "unknown"
KEEPS_OFF = ("NoSchedule", "NoExecute")
"""Effects of taints by which a pod is not placed on a node."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node: pods that do not tolerate it are not placed there."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that can run tasks.

    Attributes:
        name: name of the Kubernetes node.
        uid: uid of the node object; a node that is recreated has another one.
        tier: edge or cloud.
        gpu_type: value of the GPU type label.
        slots: tasks that it can run at a time: its allocatable GPUs, or time-sliced replicas of them.
        addresses: its addresses, to recognise it in metrics.
        is_open: whether it accepts new pods: it is not cordoned and not reported as unready.
        gpus: number of GPUs that the slots are spread over.
        labels: its labels, by which pods may select it.
        taints: taints that pods have to tolerate.
        cpu_cores: what its pods may request of its processors.
        memory_bytes: what they may request of its memory.
    """

    name: str
    uid: str
    tier: Tier
    gpu_type: str
    slots: float
    addresses: frozenset[str]
    is_open: bool
    gpus: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    taints: tuple[Taint, ...] = ()
    cpu_cores: float = 0.0
    memory_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """Which labels and resource describe a node."""

    tier: str = names.TIER_LABEL
    gpu_type: str = names.GPU_TYPE_LABEL
    gpu_resource: str = names.GPU_RESOURCE
    gpu_count: str = names.GPU_COUNT_LABEL


def read_node(item: Object, labels: NodeLabels) -> Node | None:
    """Return the node that `item` describes; None if it does not belong to PerLLM's fleet.

    A node belongs when it carries a valid tier label and has at least one slot.
    """
    metadata, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
    own: Mapping[str, str] = metadata.get("labels", {})
    tier = own.get(labels.tier)
    allocatable: Mapping[str, str] = status.get("allocatable", {})
    slots = parse_quantity(allocatable.get(labels.gpu_resource, "0"))
    if tier not in set(Tier) or slots <= 0:
        return None
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        tier=Tier(tier),
        gpu_type=own.get(labels.gpu_type, UNKNOWN_GPU),
        slots=float(slots),
        addresses=frozenset(address["address"] for address in status.get("addresses", ())),
        is_open=not spec.get("unschedulable") and not _is_unready(status),
        gpus=_read_gpus(own.get(labels.gpu_count), slots),
        labels=own,
        taints=tuple(
            Taint(one["key"], one.get("value") or "", one["effect"])
            for one in spec.get("taints") or ()
            if one["effect"] in KEEPS_OFF
        ),
        cpu_cores=parse_amount(allocatable.get("cpu", "0")),
        memory_bytes=parse_amount(allocatable.get("memory", "0")),
    )


def _read_gpus(label: str | None, slots: int | float) -> float:
    """Return the number of GPUs in the label, at most one per slot; 1 if there is no valid label."""
    labelled = int(label) if label and label.isdecimal() else 1
    return float(max(min(labelled, slots), 1))


def _is_unready(status: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] != "True" for one in status.get("conditions", ()))
