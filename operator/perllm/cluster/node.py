"""What PerLLM needs to know about a Kubernetes node."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perllm.api import names
from perllm.api.quantities import parse_amount
from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.devices import DeviceSelection, GpuDevice
from perllm.cluster.slots import is_device, read_label, read_resources
from perllm.cluster.times import parse_time_s

UNKNOWN_GPU = "unknown"


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
        slots: tasks that it can run at a time: units of all its resources together.
        addresses: its addresses, to recognise it in metrics.
        is_open: whether it accepts new pods: it is not cordoned and not reported as unready.
        gpus: number of GPUs that the slots are spread over.
        labels: its labels, by which pods may select it.
        taints: taints that pods have to tolerate.
        resources: slots by the resource that they are units of, with an empty name for those that a label states; if
            there are none, slots are units of any resource that a pod asks for.
        cpu_cores: what its pods may request of its processors.
        memory_bytes: what they may request of its memory.
        claimed: those of its resources that are devices, which pods get by claims.
        answers: whether its kubelet reports that it is ready.
        answers_since_s: Unix time since which it does, or does not; None if it never reported.
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
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    cpu_cores: float = 0.0
    memory_bytes: float = 0.0
    claimed: frozenset[str] = frozenset()
    answers: bool = True
    answers_since_s: float | None = field(default=None, compare=False)  # kubelets of some simulators rewrite it

    def slots_of(self, resource: str) -> float:
        """Return the slots for pods that ask for a resource; all slots for those that ask for none."""
        return self.resources.get(resource, 0.0) if resource and self.resources else self.slots

    @property
    def main_resource(self) -> str:
        """The resource that most of its slots are units of; empty if they are units of none."""
        return max(self.resources, key=self.resources.__getitem__, default="")


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """Which labels, resources and devices describe a node; `*` in a resource stands for any characters."""

    tier: str = names.TIER_LABEL
    gpu_type: str = names.GPU_TYPE_LABEL
    gpu_resources: tuple[str, ...] = names.GPU_RESOURCES
    slots: str = names.SLOTS_LABEL
    gpu_count: str = names.GPU_COUNT_LABEL
    devices: tuple[DeviceSelection, ...] = ()


def read_node(item: Object, labels: NodeLabels) -> Node | None:
    """Return the node that `item` describes; None if it does not belong to PerLLM's fleet.

    A node belongs when it carries a valid tier label and has at least one slot: a unit of a GPU resource, or, without
    any, one that its label states. Where devices are slots as well, `add_devices` decides whether it has one.
    """
    metadata, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
    own: Mapping[str, str] = metadata.get("labels", {})
    tier = own.get(labels.tier)
    allocatable: Mapping[str, str] = status.get("allocatable", {})
    resources = read_resources(allocatable, labels.gpu_resources)
    if not resources and (labelled := read_label(own.get(labels.slots))):
        resources = {"": float(labelled)}
    if tier not in set(Tier) or not (resources or labels.devices):
        return None
    slots = sum(resources.values())
    main = max(resources, key=resources.__getitem__, default="")
    ready: Mapping[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})
    answers = ready.get("status", "True") == "True"
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        tier=Tier(tier),
        gpu_type=_read_gpu_type(own, labels, main),
        slots=slots,
        addresses=frozenset(address["address"] for address in status.get("addresses", ())),
        is_open=not spec.get("unschedulable") and answers,
        gpus=slots if is_device(main) else _read_gpus(own.get(labels.gpu_count), slots),
        labels=own,
        taints=tuple(
            Taint(one["key"], one.get("value") or "", one["effect"])
            for one in spec.get("taints") or ()
            if one["effect"] in names.KEEPS_OFF
        ),
        resources=resources,
        cpu_cores=parse_amount(allocatable.get("cpu", "0")),
        memory_bytes=parse_amount(allocatable.get("memory", "0")),
        answers=answers,
        answers_since_s=parse_time_s(ready.get("lastTransitionTime")),
    )


def add_devices(node: Node, devices: Sequence[GpuDevice]) -> Node | None:
    """Return a node with its devices as slots, which replace those of its label; None if it has no slot at all."""
    counts = Counter(one.resource for one in devices)
    if not counts:
        return node if node.resources else None
    counted = {name: amount for name, amount in node.resources.items() if name}
    resources = {**counted, **{name: float(count) for name, count in counts.items()}}
    published = next((one.gpu_type for one in devices if one.gpu_type), UNKNOWN_GPU)
    return replace(
        node,
        gpu_type=published if node.gpu_type == UNKNOWN_GPU else node.gpu_type,
        slots=sum(resources.values()),
        gpus=(node.gpus if counted else 0.0) + len(devices),
        resources=resources,
        claimed=frozenset(counts),
    )


def _read_gpu_type(own: Mapping[str, str], labels: NodeLabels, resource: str) -> str:
    """Return the GPU type; that of its slices if its slots are those, since they are slower than the whole."""
    slices = f"{resource}.product"  # as GPU feature discovery names it for each profile of MIG
    keys = (slices if is_device(resource) else labels.gpu_type, labels.gpu_type, *names.VENDOR_TYPE_LABELS)
    return next((own[key] for key in keys if key in own), UNKNOWN_GPU)


def _read_gpus(label: str | None, slots: float) -> float:
    """Return the number of GPUs in the label, at most one per slot; 1 if there is no valid label."""
    labelled = int(label) if label and label.isdecimal() else 1
    return float(max(min(labelled, slots), 1))
