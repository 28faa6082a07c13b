"""Keeps the scheduler's view of nodes up to date: which nodes there are, their uplinks, and what has expired."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.devices import GpuDevice
from perllm.cluster.node import Node, add_devices, read_node
from perllm.guard import Guard
from perllm.nodes.node_health import NodeHealth
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.scheduling.scheduler import Scheduler
from perllm.settings.nodes import NodeSettings
from perllm.telemetry.snapshot import Snapshot

log = logging.getLogger(__name__)

BITS_PER_MEGABIT = 1e6
INTERVAL_S = 0.5


class NodeUpkeep:
    """Follows the nodes.

    Args:
        scheduler: receives the changes.
        fleet: the nodes of the scheduler.
        settings: how nodes are recognised, and what is assumed about nodes without figures.
        health: of the nodes.
        snapshot: returns the newest figures.
        guard: contains failures about single nodes.
        on_gone: called with the name of a node that has left.
        on_joined: called once a node has joined.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        fleet: Fleet,
        settings: NodeSettings,
        *,
        health: NodeHealth,
        snapshot: Callable[[], Snapshot],
        guard: Guard,
        on_gone: Callable[[str], None],
        on_joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._settings = settings
        self._labels = settings.to_labels()
        self._health = health
        self._snapshot = snapshot
        self._guard = guard
        self._on_gone = on_gone
        self._on_joined = on_joined
        self._read: dict[str, Node] = {}
        self._devices: dict[str, Sequence[GpuDevice]] = {}

    def read(self, item: Object) -> Node | None:
        """Return the node that `item` describes; None if it cannot belong to the fleet with any devices."""
        return read_node(item, self._labels)

    def on_node(self, old: Node | None, new: Node | None) -> None:
        """Handle a node that was added, changed or deleted; called inside the guard."""
        if new is not None:
            self._read[new.name] = new
            self._put(new)
        elif old is not None:
            self._read.pop(old.name, None)
            self._remove(old.name)

    def put_devices(self, name: str, devices: Sequence[GpuDevice]) -> None:
        """Replace the devices of a node, which may still be unknown."""
        if devices:
            self._devices[name] = devices
        else:
            self._devices.pop(name, None)
        if name in self._read:
            self._put(self._read[name])

    def _put(self, read: Node) -> None:
        """Take in a node as it was read, with its devices; one without a slot does not belong to the fleet."""
        new = add_devices(read, self._devices.get(read.name, ()))
        if new is None:
            self._remove(read.name)
            return
        known = self._fleet.nodes.get(new.name)
        if known == new:
            return
        self._scheduler.put_node(new, self._find_bandwidth(new.name, new.tier))
        if known is None:
            self._on_joined()
        elif known.uid != new.uid:
            self._health.forget(new.name)

    async def run(self) -> None:
        """Pass new figures to the scheduler, and have it drop what has expired, until cancelled."""
        seen: Snapshot | None = None
        while True:
            snapshot = self._snapshot()
            if snapshot is not seen:
                self._guard.run("upkeep", "of bandwidth", self._refresh_bandwidth, again=False)
                seen = snapshot
            self._guard.run("upkeep", "of circuits", self._health.tend, again=False)
            self._guard.run("upkeep", "of reservations", self._refresh_reservations, again=False)
            await asyncio.sleep(INTERVAL_S)

    def _refresh_bandwidth(self) -> None:
        found: dict[str, Bandwidth] = {}
        for name, node in self._fleet.nodes.items():
            self._guard.run("node", name, partial(self._read_bandwidth, name, node.tier, found), again=False)
        self._scheduler.put_bandwidth(found)

    def _read_bandwidth(self, name: str, tier: Tier, found: dict[str, Bandwidth]) -> None:
        found[name] = self._find_bandwidth(name, tier)

    def _refresh_reservations(self) -> None:
        for task_id in self._scheduler.refresh():
            log.warning("the reservation of task %s has expired: its pod was not bound in time", task_id)

    def _remove(self, name: str) -> None:
        """Remove a node, if it belongs to the fleet."""
        if name in self._fleet.nodes:
            self._scheduler.remove_node(name)
            self._health.forget(name)
            self._on_gone(name)

    def _find_bandwidth(self, name: str, tier: Tier) -> Bandwidth:
        """Return a node's uplink: as measured, otherwise as configured for its tier."""
        figures = self._snapshot().of(name)
        total_bps = figures.bandwidth_total_bps.fresh_value
        if total_bps is None:
            total_bps = self._settings.default_bandwidth_mbit_s[tier] * BITS_PER_MEGABIT
        return Bandwidth(total_bps, figures.bandwidth_used_bps.fresh_value or 0.0)
