"""What PerLLM needs to know of a Kubernetes node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perllm.api import names
from perllm.api.quantities import parse_quantity
from perllm.api.task import Tier
from perllm.cluster.client import Object

UNKNOWN_GPU = "unknown"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that can run tasks.

    Attributes:
        name: name of the Kubernetes node.
        uid: identity of this incarnation of it.
        tier: edge or cloud.
        gpu_type: value of the GPU type label.
        slots: tasks that it can run at a time, its allocatable GPUs (or replicas of them).
        gpus: GPUs that these slots are spread over.
        addresses: its addresses, to recognise it in metrics.
        is_open: whether it takes new pods: it is ready, or has not said otherwise, and is not cordoned.
    """

    name: str
    uid: str
    tier: Tier
    gpu_type: str
    slots: float
    addresses: frozenset[str]
    is_open: bool
    gpus: float = 1.0


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
    metadata, status = item["metadata"], item.get("status", {})
    own: Mapping[str, str] = metadata.get("labels", {})
    tier = own.get(labels.tier)
    slots = parse_quantity(status.get("allocatable", {}).get(labels.gpu_resource, "0"))
    if tier not in set(Tier) or slots <= 0:
        return None
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        tier=Tier(tier),
        gpu_type=own.get(labels.gpu_type, UNKNOWN_GPU),
        slots=float(slots),
        addresses=frozenset(address["address"] for address in status.get("addresses", ())),
        is_open=not item.get("spec", {}).get("unschedulable") and not _is_unready(status),
        gpus=_read_gpus(own.get(labels.gpu_count), slots),
    )


def _read_gpus(label: str | None, slots: int | float) -> float:
    """Return the number of GPUs that the label tells, at most one per slot; 1 where it tells none."""
    told = int(label) if label and label.isdecimal() else 1
    return float(max(min(told, slots), 1))


def _is_unready(status: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] != "True" for one in status.get("conditions", ()))
