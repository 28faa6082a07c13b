"""Follows the devices of nodes, and which of them pods of others hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from perllm.cluster.devices import DeviceClaim, DeviceId, DeviceSlice, GpuDevice, find_complete
from perllm.cluster.pod import Pod


class NodeDevices:
    """Follows devices.

    A device is foreign while it is allocated to a claim that none of PerLLM's pods uses, unless that pod has ended. So
    a device of a pod that has just ended is foreign until Kubernetes has given it back: the ledger no longer counts the
    pod, and no other one could have the device yet.

    Args:
        show: called with a node and its devices whenever they have changed.
        show_foreign: called with a node and the number of its foreign devices by resource whenever that has changed.
    """

    def __init__(
        self, show: Callable[[str, Sequence[GpuDevice]], None], show_foreign: Callable[[str, dict[str, float]], None]
    ) -> None:
        self._show = show
        self._show_foreign = show_foreign
        self._slices: dict[tuple[str, str], dict[str, DeviceSlice]] = defaultdict(dict)
        self._pools: dict[tuple[str, str], tuple[GpuDevice, ...]] = {}
        self._nodes: dict[str, dict[DeviceId, GpuDevice]] = defaultdict(dict)
        self._nodes_of: dict[DeviceId, str] = {}
        self._holders: dict[DeviceId, DeviceClaim] = {}
        self._own_pods: set[str] = set()
        self._foreign: dict[str, dict[str, float]] = {}

    def on_slice(self, old: DeviceSlice | None, new: DeviceSlice | None) -> None:
        """Handle a slice that was added, changed or deleted; called inside the guard."""
        if old is not None:
            self._slices[old.pool].pop(old.name, None)
        if new is not None:
            self._slices[new.pool][new.name] = new
        for pool in {one.pool for one in (old, new) if one is not None}:
            # While a new generation arrives the former one counts: the node must not leave the fleet for that long.
            found = find_complete(self._slices[pool].values())
            if found is not None:
                self._replace_pool(pool, found)
            if not self._slices[pool]:
                del self._slices[pool]

    def on_claim(self, old: DeviceClaim | None, new: DeviceClaim | None) -> None:
        """Handle a claim that was added, changed or deleted; called inside the guard."""
        before, after = (one.devices if one is not None else frozenset[DeviceId]() for one in (old, new))
        for device in before:
            if self._holders.get(device) == old:
                del self._holders[device]
        if new is not None:
            self._holders.update(dict.fromkeys(after, new))
        self._refresh_foreign(self._nodes_of[device] for device in before | after if device in self._nodes_of)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """Handle a pod that PerLLM counts, added, changed or deleted; to be called before its end frees its slots."""
        if old is not None:
            self._own_pods.discard(old.uid)
        if new is not None and not (new.is_finished and new.linger_s is None):
            self._own_pods.add(new.uid)
        self._refresh_foreign(pod.node for pod in (old, new) if pod is not None and pod.node is not None)

    def _replace_pool(self, pool: tuple[str, str], devices: tuple[GpuDevice, ...]) -> None:
        known = self._pools.get(pool, ())
        if known == devices:
            return
        # A broken driver may list a device in two slices.
        for device in known:
            self._nodes[device.node].pop(device.id, None)
            self._nodes_of.pop(device.id, None)
        for device in devices:
            self._nodes[device.node][device.id] = device
            self._nodes_of[device.id] = device.node
        nodes = {device.node for device in (*known, *devices)}
        for node in nodes:
            self._show(node, list(self._nodes[node].values()))
        self._refresh_foreign(nodes)
        # Last: if something fails before, all of it is repeated.
        self._pools[pool] = devices
        if not devices:
            del self._pools[pool]
        for node in [node for node in nodes if not self._nodes[node]]:
            del self._nodes[node]

    def _refresh_foreign(self, nodes: Iterable[str]) -> None:
        for node in set(nodes):
            held = (one.resource for one in self._nodes.get(node, {}).values() if self._is_foreign(one.id))
            foreign = {name: float(count) for name, count in Counter(held).items()}
            if foreign != self._foreign.pop(node, {}):
                self._show_foreign(node, foreign)
            if foreign:
                self._foreign[node] = foreign

    def _is_foreign(self, device: DeviceId) -> bool:
        claim = self._holders.get(device)
        return claim is not None and claim.users.isdisjoint(self._own_pods)
