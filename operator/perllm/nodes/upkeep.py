"""Keeps the scheduler's view of nodes up to date: which nodes there are, their uplinks, and what has expired."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.node import Node, read_node
from perllm.config import NodeSettings
from perllm.guard import Guard
from perllm.nodes.node_health import NodeHealth
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.scheduling.scheduler import Scheduler
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
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._settings = settings
        self._labels = settings.to_labels()
        self._health = health
        self._snapshot = snapshot
        self._guard = guard
        self._on_gone = on_gone

    def read(self, item: Object) -> Node | None:
        """Return the node that `item` describes; None if it does not belong to the fleet."""
        return read_node(item, self._labels)

    def on_node(self, old: Node | None, new: Node | None) -> None:
        """Handle a node that was added, changed or deleted; called inside the guard."""
        if new is None:
            if old is not None:
                self._remove(old.name)
            return
        known = self._fleet.nodes.get(new.name)
        if known == new:
            return
        self._scheduler.put_node(new, self._find_bandwidth(new.name, new.tier))
        if known is not None and known.uid != new.uid:
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
