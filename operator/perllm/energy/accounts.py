"""The accounts of nodes: where their energy went, part by part."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from perllm.energy.attribution import Window, count_present, share_energy
from perllm.energy.bill import BillMetrics
from perllm.energy.history import EnergyHistory
from perllm.energy.intervals import Intervals
from perllm.energy.settlement import SETTLING_S, Settlement
from perllm.guard import Guard

INTERVAL_S = 30.0
"""How often accounts are updated."""

_PARTS = ("tasks", "foreign", "idle")


@dataclass(frozen=True, slots=True)
class EnergyParts:
    """What became of the energy that a node was measured to use; joules.

    Attributes:
        measured_j: all of it.
        charges_j: charged to each task, with its part of the idle power.
        foreign_j: charged to foreign requests in the same way.
        idle_j: the idle power of the node, for the time in which it was empty.
    """

    measured_j: float
    charges_j: Mapping[str, float]
    foreign_j: float
    idle_j: float

    @property
    def tasks_j(self) -> float:
        """Charged to all tasks."""
        return sum(self.charges_j.values())

    @property
    def unattributed_j(self) -> float:
        """What the parts do not explain; below 0 if they are more than was measured."""
        return self.measured_j - self.tasks_j - self.foreign_j - self.idle_j


def divide_energy(
    intervals: Intervals, tasks: Sequence[Window], foreign: Sequence[Window], idle_w: float | None
) -> EnergyParts:
    """Divide the energy of a node, for the time in which it is known.

    No part is the remainder: the idle energy is that of the idle power, which was seen when the node was empty at
    other times as well, and what an empty node uses beyond it is in none of them.
    """
    windows = [*tasks, *foreign]
    charges = share_energy(intervals, windows, idle_w or 0.0)
    presence = count_present(windows)
    first_s, last_s = intervals.times_s[0], intervals.times_s[-1]
    bounds_s = np.union1d(intervals.times_s, presence.between(first_s, last_s))
    interval = np.searchsorted(intervals.times_s, bounds_s[:-1], side="right") - 1
    is_empty = (presence.at(bounds_s[:-1]) == 0) & ~np.isnan(intervals.energy_j)[interval]
    return EnergyParts(
        measured_j=float(np.nansum(intervals.energy_j)),
        charges_j={window.task_id: charges.sum_j(window) for window in tasks},
        foreign_j=sum(charges.sum_j(window) for window in foreign),
        idle_j=(idle_w or 0.0) * float(np.diff(bounds_s)[is_empty].sum()),
    )


class AccountMetrics:
    """The metrics of the accounts, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.measured = Counter(
            "perllm_node_energy_joules", "Energy that a node was measured to use.", ["node"], registry=registry
        )
        self.parts = Counter(
            "perllm_node_energy_part_joules",
            "Where the energy of a node went: tasks, foreign requests, or the idle power of the empty node.",
            ["node", "part"],
            registry=registry,
        )
        self.unattributed = Gauge(
            "perllm_energy_unattributed_joules",
            "Measured energy of a node less its parts, since the operator started.",
            ["node"],
            registry=registry,
        )

    def add(self, node: str, parts: EnergyParts) -> None:
        """Add to the account of a node."""
        self.measured.labels(node).inc(parts.measured_j)
        for part, energy_j in zip(_PARTS, (parts.tasks_j, parts.foreign_j, parts.idle_j), strict=True):
            self.parts.labels(node, part).inc(max(energy_j, 0.0))
        self.unattributed.labels(node).inc(parts.unattributed_j)

    def remove(self, node: str) -> None:
        """Remove the account of a node that is gone."""
        self.measured.remove(node)
        self.unattributed.remove(node)
        for part in _PARTS:
            self.parts.remove(node, part)


class EnergyAccounts:
    """Keeps the account of every node up to date, as soon as its tasks are settled.

    Args:
        history: energy of the nodes.
        settlement: their tasks.
        nodes: returns the names of the current nodes.
        metrics: show the accounts.
        bill: shows what tasks are charged, by payer.
        guard: contains failures about single nodes.
        window_s: how far back the energy history reaches.
        unix_now: Unix time in seconds.
    """

    def __init__(
        self,
        history: EnergyHistory,
        settlement: Settlement,
        nodes: Callable[[], Collection[str]],
        metrics: AccountMetrics,
        bill: BillMetrics,
        *,
        guard: Guard,
        window_s: float,
        unix_now: Callable[[], float],
    ) -> None:
        self._history = history
        self._settlement = settlement
        self._nodes = nodes
        self._metrics = metrics
        self._bill = bill
        self._guard = guard
        self._window_s = window_s
        self._unix_now = unix_now
        self._until_s: dict[str, float] = {}
        self._seen_s: dict[str, float] = {}
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Update all accounts regularly, until cancelled."""
        while True:
            self.open()
            await asyncio.sleep(INTERVAL_S)
            await self.update()

    async def update(self) -> None:
        """Advance all accounts once, those of nodes that have left until nothing more can become known of them."""
        now_s = self._unix_now()
        self._seen_s |= dict.fromkeys(self._nodes(), now_s)
        for node in list(self._until_s):
            self._guard.run("account", node, partial(self.advance, node), again=False)
            await asyncio.sleep(0)
        self._forget([node for node in self._until_s if now_s - self._seen_s[node] >= self._window_s])

    def open(self) -> None:
        """Begin the accounts of nodes that have none, so that tasks that end before the next round are part of them."""
        now_s = self._unix_now()
        for node in self._nodes():
            # One that is to begin later was opened by a clock that has been set back since.
            self._until_s[node] = min(self._until_s.get(node, now_s), now_s)
            self._seen_s[node] = now_s

    def advance(self, node: str) -> None:
        """Add what the node has used since the last time, as far as it is known and its tasks are settled."""
        now_s = self._unix_now()
        covered_s = self._history.find_covered_s(node)
        if covered_s is None:
            return
        # A long task delays its node's account, but not for longer than samples are kept.
        begun_s = max(self._settlement.find_begun_s(node), now_s - self._window_s / 2)
        end_s = min(covered_s, now_s - SETTLING_S, begun_s)
        start_s = self._until_s.setdefault(node, end_s)
        if end_s <= start_s:
            return
        tasks, foreign = self._settlement.list_windows(node, start_s, end_s)
        found = self._history.intervals(node, start_s, end_s, lambda: self._settlement.find_presence(node))
        intervals = _clip(found, start_s, end_s)
        if not len(intervals.energy_j):
            return
        self._until_s[node] = float(intervals.times_s[-1])
        idle_w = self._settlement.find_idle_power_w(node, intervals.meters)
        parts = divide_energy(intervals, tasks, foreign, idle_w)
        self._metrics.add(node, parts)
        self._shown.add(node)
        for pod_uid, energy_j in parts.charges_j.items():
            owner = self._settlement.find_owner(node, pod_uid)
            if owner is not None:
                self._bill.charge(owner, energy_j)

    def _forget(self, nodes: Collection[str]) -> None:
        for node in nodes:
            del self._until_s[node], self._seen_s[node]
            if node in self._shown:
                self._shown.remove(node)
                self._metrics.remove(node)


def _clip(intervals: Intervals, start_s: float, end_s: float) -> Intervals:
    """Return the intervals that lie within a window as a whole."""
    inside = np.flatnonzero((intervals.times_s >= start_s) & (intervals.times_s <= end_s))
    if len(inside) < 2:
        return replace(intervals, times_s=np.empty(0), energy_j=np.empty(0))
    first, last = inside[0], inside[-1]
    return replace(intervals, times_s=intervals.times_s[first : last + 1], energy_j=intervals.energy_j[first:last])
