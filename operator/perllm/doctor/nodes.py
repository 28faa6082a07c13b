"""Checks whether PerLLM can use the nodes: their labels, GPUs, taints and circuits."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from perllm.api.names import DEVICE_API, GPU_RESOURCE, KEEPS_OFF
from perllm.api.node_profile import CircuitState
from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.devices import GpuDevice, list_devices, read_slice
from perllm.cluster.node import UNKNOWN_GPU, Node, add_devices, read_node
from perllm.cluster.shapes import as_object, as_text
from perllm.cluster.slots import read_label, read_resources
from perllm.doctor.finding import Finding, fail, name_some, ok, warn
from perllm.learning.priors import GENERIC, find_prior
from perllm.settings.nodes import NodeSettings

NODES = "nodes"

_MAYBE_GPU = re.compile(r"^(nvidia|amd)\.com/|gpu")


def find_fleet(items: Sequence[Object], settings: NodeSettings, slices: Sequence[Object] = ()) -> list[Node]:
    """Return the nodes that PerLLM places tasks on."""
    labels, devices = settings.to_labels(), _find_devices(slices, settings)
    read = [node for item in items if (node := read_node(item, labels)) is not None]
    return [node for one in read if (node := add_devices(one, devices.get(one.name, ()))) is not None]


def find_addresses(items: Sequence[Object]) -> dict[str, list[str]]:
    """Return the addresses of all nodes by name."""
    return {
        item["metadata"]["name"]: [one["address"] for one in item.get("status", {}).get("addresses") or ()]
        for item in items
    }


def check_nodes(
    items: Sequence[Object], settings: NodeSettings, slices: Sequence[Object] | None = ()
) -> Iterator[Finding]:
    """Check all nodes of the cluster, with the ResourceSlices there; None if the cluster does not serve any."""
    known = slices or ()
    fleet, drivers = find_fleet(items, settings, known), _find_drivers(known)
    yield _check_fleet(fleet, settings)
    yield from _check_labels(items, settings, _find_devices(known, settings), drivers)
    if slices is None and settings.devices:
        message = f"config.nodes.devices has no effect: the cluster does not serve {DEVICE_API}"
        yield fail(NODES, message, "devices need Kubernetes 1.34: upgrade the cluster, or remove them")
    else:
        yield from _check_drivers(drivers, settings)
    yield from _check_members(items, fleet, settings)


def check_circuits(profiles: Sequence[Object]) -> Iterator[Finding]:
    """Report nodes whose profiles show an open or half-open circuit."""
    for item in profiles:
        circuit = (item.get("status") or {}).get("circuit") or {}
        state = circuit.get("state")
        if state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            who = [f"of {kind} {name_some(circuit[kind])}" for kind in ("models", "namespaces") if circuit.get(kind)]
            message = " ".join([f"{_node_of(item)} receives no tasks", *who, f"for now ({state})"])
            advice = "kubectl describe node NAME, and the events of the pods there; PerLLM probes the node by itself"
            yield warn(NODES, f"{message}: {circuit.get('reason')}", advice)


def _node_of(profile: Object) -> str:
    owners = profile["metadata"].get("ownerReferences") or ()
    return next((one["name"] for one in owners if one["kind"] == "Node"), str(profile["metadata"]["name"]))


def _check_fleet(fleet: Sequence[Node], settings: NodeSettings) -> Finding:
    if not fleet:
        resources = name_some(settings.resources)
        advice = f"kubectl label node NAME {settings.tier_label}=edge (or cloud), on nodes with a GPU"
        return fail(NODES, f"no node has the label {settings.tier_label} and one of {resources}", advice)
    parts = [f"{sum(node.tier is tier for node in fleet)} {tier}" for tier in Tier]
    return ok(NODES, f"{', '.join(parts)}, {sum(node.slots for node in fleet):g} tasks at a time")


def _find_devices(slices: Sequence[Object], settings: NodeSettings) -> dict[str, list[GpuDevice]]:
    """Return the devices of each node that are slots."""
    selections = settings.to_labels().devices
    return list_devices(one for item in slices if (one := read_slice(item, selections)) is not None)


def _find_drivers(slices: Sequence[Object]) -> dict[str, set[str]]:
    """Return the drivers of the devices of each node."""
    found: dict[str, set[str]] = defaultdict(set)
    for spec in (as_object(item.get("spec")) for item in slices):
        found[as_text(spec.get("nodeName"))].add(as_text(spec.get("driver")))
    return found


def _check_drivers(drivers: Mapping[str, set[str]], settings: NodeSettings) -> Iterator[Finding]:
    present = set[str]().union(*drivers.values())
    if absent := sorted({one.driver for one in settings.devices} - present):
        message = f"no node has devices of {name_some(absent)}, which config.nodes.devices names"
        yield fail(NODES, message, "install the driver")


def _check_labels(
    items: Sequence[Object],
    settings: NodeSettings,
    devices: Mapping[str, Sequence[GpuDevice]],
    drivers: Mapping[str, set[str]],
) -> Iterator[Finding]:
    """Compare tier labels with GPUs."""
    wrong, empty, unlabelled = [], [], defaultdict(list)
    for item in items:
        name, tier = item["metadata"]["name"], _labels(item).get(settings.tier_label)
        kinds = {one.resource for one in devices.get(name, ())}
        resources = {*read_resources(_allocatable(item), settings.resources), *kinds}
        has_slots = bool(resources or read_label(_labels(item).get(settings.slots_label)))
        if tier is not None and tier not in set(Tier):
            wrong.append(f"{name} ({tier!r})")
        elif tier is not None and not has_slots:
            empty.append(item)
        elif tier is None and has_slots:
            unlabelled[", ".join(sorted(resources)) or settings.slots_label].append(name)
    if wrong:
        message = f"{settings.tier_label} is neither edge nor cloud on {name_some(wrong)}"
        yield fail(NODES, message, f"kubectl label --overwrite node NAME {settings.tier_label}=edge (or cloud)")
    yield from _check_empty(empty, settings, drivers)
    for resource, names in unlabelled.items():
        message = f"with {resource}, but without {settings.tier_label}: {name_some(names)}"
        yield warn(
            NODES, message, f"kubectl label node NAME {settings.tier_label}=edge (or cloud), if tasks may run there"
        )


def _check_empty(items: Sequence[Object], settings: NodeSettings, drivers: Mapping[str, set[str]]) -> Iterator[Finding]:
    """Report nodes with a tier label and without a slot, by what there is instead."""
    causes = defaultdict(list)
    for item in items:
        name = item["metadata"]["name"]
        causes[_find_cause(item, settings, drivers.get(name, set()))].append(name)
    for (cause, advice), names in causes.items():
        yield fail(NODES, f"labelled, but {cause}: {name_some(names)}", advice)


def _find_cause(item: Object, settings: NodeSettings, drivers: Collection[str]) -> tuple[str, str]:
    """Return why a node has no slots, and what to do about it."""
    capacity, label = item.get("status", {}).get("capacity") or {}, f"{settings.slots_label}=NUMBER"
    if broken := sorted(read_resources(capacity, settings.resources)):
        cause = f"none of its {name_some(broken)} can be allocated"
        return cause, "the log of the device plugin there says why; its GPUs may be unhealthy"
    if others := [name for name in sorted(_allocatable(item)) if _MAYBE_GPU.search(name)]:
        return f"only with {name_some(others)}", "add what a task takes a unit of to config.nodes.gpu_resources"
    if selected := sorted({one.driver for one in settings.devices} & set(drivers)):
        cause = f"without a device of {name_some(selected)} that config.nodes.devices selects, in a complete pool"
        return cause, "compare config.nodes.devices with: kubectl get resourceslices -o yaml"
    if gpus := sorted(filter(_MAYBE_GPU.search, drivers)):
        advice = "add them to config.nodes.devices, with the DeviceClass by which pods claim them"
        return f"only with devices of {name_some(gpus)}", advice
    if settings.slots_label in _labels(item):
        return f"{settings.slots_label} is not a number above 0", f"kubectl label --overwrite node NAME {label}"
    advice = f"install the device plugin there; if there is none, as on a Jetson: kubectl label node NAME {label}"
    return "without a GPU that can be allocated", advice


def _check_members(items: Sequence[Object], fleet: Sequence[Node], settings: NodeSettings) -> Iterator[Finding]:
    by_name = {item["metadata"]["name"]: item for item in items}
    closed = [node.name for node in fleet if not node.is_open]
    untyped = [node.name for node in fleet if node.gpu_type == UNKNOWN_GPU]
    unknown = sorted({node.gpu_type for node in fleet if node.name not in untyped and _is_unknown(node.gpu_type)})
    mixed = [f"{node.name} ({', '.join(sorted(node.resources))})" for node in fleet if len(node.resources) > 1]
    shared = defaultdict(list)
    for node in fleet:
        if not _keeps_others_off(by_name[node.name]):
            shared[_find_taint_key(node, settings)].append(node.name)
    if closed:
        yield warn(NODES, f"not ready or cordoned: {name_some(closed)}", "kubectl describe node NAME")
    if untyped:
        message = f"without {settings.gpu_type_label}: {name_some(untyped)}"
        yield warn(
            NODES, message, "run GPU feature discovery, or set the label by hand; nodes of a type learn together"
        )
    if unknown:
        message = f"no published figures for {name_some(unknown)}"
        yield warn(NODES, message, "nothing to do; predictions for the first few tasks there will be inaccurate")
    if mixed:
        message = f"slots of several kinds: {name_some(mixed)}"
        yield warn(
            NODES, message, "their times are learned together; one kind or MIG profile per node is predicted better"
        )
    if shared and len(fleet) == len(items):
        yield ok(NODES, "other schedulers use them too, since the cluster has no other nodes")
        return
    for key, names in shared.items():
        message = f"no taint keeps other schedulers off {name_some(names)}"
        yield warn(NODES, message, f"kubectl taint node NAME {key}=:NoSchedule, and tolerate it in tasks")


def _find_taint_key(node: Node, settings: NodeSettings) -> str:
    """Return the key that the vendor's own programs tolerate: of NVIDIA, one for slices and replicas as well."""
    if node.main_resource.startswith("nvidia.com/"):
        return GPU_RESOURCE
    return settings.slots_label if node.main_resource in {"", *node.claimed} else node.main_resource


def _keeps_others_off(item: Object) -> bool:
    # Kubernetes adds and removes its own taints with the state of the node.
    taints = item.get("spec", {}).get("taints") or ()
    return any(one["effect"] in KEEPS_OFF and "kubernetes.io/" not in one["key"] for one in taints)


def _is_unknown(gpu_type: str) -> bool:
    return find_prior(gpu_type) is GENERIC


def _labels(item: Object) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _allocatable(item: Object) -> dict[str, str]:
    return item.get("status", {}).get("allocatable") or {}
