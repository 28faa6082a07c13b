"""GPUs as devices of dynamic resource allocation (`resource.k8s.io/v1`), and the claims by which pods get them.

A driver publishes the devices of a pool in ResourceSlices. A pool is complete once as many slices of its newest
generation are there as each of them states; as in kube-scheduler, devices of other slices do not count. A claim states
how many devices of a DeviceClass a pod needs, and, once kube-scheduler has allocated it, which ones they are.

Drivers and users write these objects, so parts of an unexpected type count as absent. Nothing in here raises.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perllm.api.names import KEEPS_OFF
from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_objects, as_text

MAX_COUNT = 1000
"""More devices than any node has."""

DeviceId = tuple[str, str, str]
"""Driver, pool and name of a device."""


@dataclass(frozen=True, slots=True)
class DeviceSelection:
    """Which devices are GPUs, and how pods ask for them.

    Attributes:
        device_class: DeviceClass that claims name.
        driver: driver of the devices.
        attributes: values that their attributes must have.
        type_attribute: attribute that holds the GPU type.
        extended_resource: extended resource by which pods may ask for them as well; empty if there is none.
    """

    device_class: str
    driver: str
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    type_attribute: str = "productName"
    extended_resource: str = ""

    @property
    def resource(self) -> str:
        """The resource that slots of these devices are units of."""
        return self.extended_resource or self.device_class


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """A device that counts as a slot of its node.

    Attributes:
        id: driver, pool and name.
        node: its node.
        resource: that it is a unit of, by the name that its selection has for it.
        gpu_type: its GPU type, in the notation of node labels; empty if the driver does not publish it.
    """

    id: DeviceId
    node: str
    resource: str
    gpu_type: str


@dataclass(frozen=True, slots=True)
class DeviceSlice:
    """A ResourceSlice: a part of a generation of a pool of devices.

    Attributes:
        name: its name.
        pool: driver and name of the pool.
        generation: generation of the pool.
        total: slices that this generation consists of.
        devices: the devices that are selected.
    """

    name: str
    pool: tuple[str, str]
    generation: int
    total: int
    devices: tuple[GpuDevice, ...]


@dataclass(frozen=True, slots=True)
class DeviceClaim:
    """A ResourceClaim, or a ResourceClaimTemplate, of which claims are made.

    Attributes:
        namespace: its namespace.
        name: its name.
        is_template: whether it is a template.
        counts: how many devices it asks for, by DeviceClass.
        devices: those that are allocated to it.
        users: uids of the pods that they are reserved for.
    """

    namespace: str
    name: str
    is_template: bool
    counts: Mapping[str, int]
    devices: frozenset[DeviceId] = frozenset()
    users: frozenset[str] = frozenset()


def read_slice(item: Object, selections: Sequence[DeviceSelection]) -> DeviceSlice | None:
    """Return a slice with its selected devices; None if it is of another driver."""
    spec = as_object(item.get("spec"))
    driver, pool = as_text(spec.get("driver")), as_object(spec.get("pool"))
    chosen = [one for one in selections if one.driver == driver]
    if not chosen:
        return None
    name, node = as_text(pool.get("name")), as_text(spec.get("nodeName"))
    found = (_read_device(one, (driver, name), node, chosen) for one in as_objects(spec.get("devices")))
    return DeviceSlice(
        name=item["metadata"]["name"],
        pool=(driver, name),
        generation=_as_count(pool.get("generation"), limit=None),
        total=_as_count(pool.get("resourceSliceCount")),
        devices=tuple(device for device in found if device is not None),
    )


def find_complete(slices: Iterable[DeviceSlice]) -> tuple[GpuDevice, ...] | None:
    """Return the devices of a pool that consists of these slices; None while its newest generation is incomplete."""
    known = list(slices)
    generation = max((one.generation for one in known), default=0)
    newest = [one for one in known if one.generation == generation]
    if any(one.total != len(newest) for one in newest):
        return None
    return tuple(device for one in newest for device in one.devices)


def list_devices(slices: Iterable[DeviceSlice]) -> dict[str, list[GpuDevice]]:
    """Return the devices of all complete pools, by node."""
    pools: dict[tuple[str, str], list[DeviceSlice]] = defaultdict(list)
    for one in slices:
        pools[one.pool].append(one)
    found: dict[str, list[GpuDevice]] = defaultdict(list)
    for parts in pools.values():
        for device in find_complete(parts) or ():
            found[device.node].append(device)
    return found


def read_claim(item: Object, *, is_template: bool = False) -> DeviceClaim:
    """Return a claim, or a template of claims."""
    metadata, spec, status = (as_object(item.get(part)) for part in ("metadata", "spec", "status"))
    wanted = as_object(spec.get("spec")) if is_template else spec
    allocated = as_object(as_object(status.get("allocation")).get("devices"))
    # Administrators look at devices that others use.
    results = [one for one in as_objects(allocated.get("results")) if one.get("adminAccess") is not True]
    return DeviceClaim(
        namespace=as_text(metadata.get("namespace")),
        name=as_text(metadata.get("name")),
        is_template=is_template,
        counts=_count_requests(as_object(wanted.get("devices"))),
        devices=frozenset(
            (as_text(one.get("driver")), as_text(one.get("pool")), as_text(one.get("device"))) for one in results
        ),
        users=frozenset(as_text(one.get("uid")) for one in as_objects(status.get("reservedFor"))),
    )


def _read_device(
    item: dict[str, Any], pool: tuple[str, str], node: str, selections: Iterable[DeviceSelection]
) -> GpuDevice | None:
    """Return a device as the first selection has it that it matches; None if pods cannot get it."""
    if any(taint.get("effect") in KEEPS_OFF for taint in as_objects(item.get("taints"))):
        return None
    attributes, node = as_object(item.get("attributes")), node or as_text(item.get("nodeName"))
    for one in selections:
        values = {key: _read_attribute(attributes, key, one.driver) for key in (*one.attributes, one.type_attribute)}
        if node and all(values[key] == value for key, value in one.attributes.items()):
            gpu_type = "-".join(values[one.type_attribute].split())
            return GpuDevice((*pool, as_text(item.get("name"))), node, one.resource, gpu_type)
    return None


def _read_attribute(attributes: dict[str, Any], name: str, driver: str) -> str:
    """Return an attribute as text; its name may leave out the driver as its domain."""
    value = as_object(attributes.get(name, attributes.get(f"{driver}/{name}")))
    found = next((value[kind] for kind in ("string", "bool", "int", "version") if kind in value), "")
    return str(found).lower() if isinstance(found, bool) else str(found)


def _count_requests(devices: dict[str, Any]) -> dict[str, int]:
    """Return the devices that requests ask for; of alternatives the first, and of all that a node has, one."""
    counts: Counter[str] = Counter()
    for request in as_objects(devices.get("requests")):
        wanted = next(iter(as_objects(request.get("firstAvailable"))), as_object(request.get("exactly")))
        if wanted.get("adminAccess") is not True:
            counts[as_text(wanted.get("deviceClassName"))] += max(_as_count(wanted.get("count")), 1)
    return dict(counts)


def _as_count(value: object, *, limit: int | None = MAX_COUNT) -> int:
    count = max(value, 0) if isinstance(value, int) else 0
    return count if limit is None else min(count, limit)
