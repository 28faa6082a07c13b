"""The nodes as arrays, kept current outside the hot path, so that a decision only indexes them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.placement.demand import NodeRules
from perllm.placement.fitting import FitArray, Fitting
from perllm.placement.serving import NOTHING, UNKNOWN_SLOTS, Serving
from perllm.policy.arrays import Index, extend
from perllm.policy.problem import BoolArray, FloatArray, IntArray

_TIERS = tuple(Tier)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Uplink of a node, in bits per second; a use of 0 where it is not measured, so that what was promised counts."""

    capacity_bps: float
    used_bps: float


class Fleet:
    """Known nodes by row; rows are given out by the learner and stay for the life of the process.

    Attributes:
        nodes: by name.
        version: grows whenever a node is added, removed or changed; readings of bandwidth do not count.
    """

    def __init__(self) -> None:
        self.version = 0
        self.nodes: dict[str, Node] = {}
        self._rows: dict[str, int] = {}
        self._present: dict[str, int] = {}
        self._tier = np.zeros(0, dtype=np.int64)
        self._is_open = np.zeros(0)
        self._foreign: dict[str, Mapping[str, float]] = {}
        self._foreign_slots: dict[str, FloatArray] = {}
        self._sizes = {"": np.zeros(0)}
        # Slots of nodes that name no resource: units of any that a pod asks for, unless another node names it.
        self._unnamed = np.zeros(0)
        self._gpus = np.ones(0)
        self._cpu_cores = np.zeros(0)
        self._memory_bytes = np.zeros(0)
        self._fitting = Fitting()
        self._serving: dict[str, Serving] = {}
        self._servers: dict[str, BoolArray] = {}
        self._models: dict[int, frozenset[str]] = {}
        self._served_slots = np.zeros(0)
        self._all_nodes: tuple[list[str], IntArray] | None = None
        self._bandwidth_capacity_bps = np.zeros(0)
        self._bandwidth_used_bps = np.zeros(0)
        self._idle_w = np.zeros(0)

    def put(self, node: Node, row: int, bandwidth: Bandwidth) -> None:
        """Add a node or replace what is known of it."""
        self._cover(row + 1)
        self.version += self.nodes.get(node.name) != node
        self.nodes[node.name] = node
        self._rows[node.name] = self._present[node.name] = row
        self._tier[row] = _TIERS.index(node.tier)
        self._is_open[row] = node.is_open
        for resource in node.resources.keys() - self._sizes.keys():
            self._sizes[resource] = self._unnamed.copy()
        for resource, sizes in self._sizes.items():
            sizes[row] = node.slots_of(resource)
        self._unnamed[row] = 0.0 if node.resources else node.slots
        self._gpus[row] = node.gpus
        self._cpu_cores[row] = node.cpu_cores
        self._memory_bytes[row] = node.memory_bytes
        self._all_nodes = None
        self._fitting.put(node, row)
        self._show_foreign(node.name)
        self.put_bandwidth(node.name, bandwidth)
        self._show_serving(node, row)

    def put_bandwidth(self, name: str, bandwidth: Bandwidth) -> None:
        """Replace what is known of a node's uplink."""
        row = self._rows[name]
        self._bandwidth_capacity_bps[row] = bandwidth.capacity_bps
        self._bandwidth_used_bps[row] = bandwidth.used_bps

    def put_idle_power(self, name: str, idle_w: float) -> None:
        """Replace the idle power of a node, in watts."""
        self._idle_w[self._rows[name]] = idle_w

    def put_foreign(self, name: str, slots: Mapping[str, float]) -> None:
        """Replace the slots of a node that foreign pods take, by resource; the node may still be unknown."""
        if slots:
            self._foreign[name] = slots
        else:
            self._foreign.pop(name, None)
        if name in self.nodes:
            self._show_foreign(name)

    def put_serving(self, name: str, serving: Serving) -> None:
        """Replace what the model servers of a node offer; the node may still be unknown."""
        known = self.serving_of(name)
        if serving == NOTHING:
            self._serving.pop(name, None)
        else:
            self._serving[name] = serving
        node = self.nodes.get(name)
        if node is not None and (known.models, known.slots) != (serving.models, serving.slots):
            self.version += 1
            self._show_serving(node, self._rows[name])

    def serving_of(self, name: str) -> Serving:
        """Return what the model servers of a node offer."""
        return self._serving.get(name, NOTHING)

    def remove(self, name: str) -> None:
        """Forget a node that left the cluster; it keeps its row in case it returns."""
        self.version += self.nodes.pop(name, None) is not None
        row = self._present.pop(name, None)
        if row is not None:
            self._fitting.remove(row)
        self._all_nodes = None

    def all_nodes(self) -> tuple[list[str], IntArray]:
        """Return all nodes and their rows."""
        if self._all_nodes is None:
            names = list(self.nodes)
            self._all_nodes = names, self.rows(names)
        return self._all_nodes

    def find(self, candidates: Sequence[str]) -> tuple[Sequence[str], IntArray]:
        """Return those of `candidates` that belong to the fleet, and their rows.

        They are in the order of `candidates`, but where these are the whole fleet in that of `all_nodes`, since rows in
        order are read the fastest: kube-scheduler lists nodes in an arbitrary order.
        """
        found = map(self._present.get, candidates, repeat(-1))
        rows = np.fromiter(found, dtype=np.int64, count=len(candidates))
        known = rows if rows.min(initial=0) >= 0 else rows[rows >= 0]
        if len(known) == len(self.nodes) and self._are_all(known):
            return self.all_nodes()
        if len(known) == len(rows):
            return candidates, rows
        return [name for name, row in zip(candidates, rows.tolist(), strict=True) if row >= 0], known

    def known(self, candidates: Iterable[str]) -> list[str]:
        """Return those of `candidates` that belong to the fleet, in their order."""
        nodes = self.nodes
        return [name for name in candidates if name in nodes]

    def rows(self, names: Sequence[str]) -> IntArray:
        """Return the rows of known nodes, shape (n,)."""
        rows: Mapping[str, int] = self._rows
        return np.fromiter(map(rows.__getitem__, names), dtype=np.int64, count=len(names))

    def row(self, name: str) -> int:
        """Return the row of a known node."""
        return self._rows[name]

    def tier_allowed(self, rows: IntArray, tiers: frozenset[Tier]) -> BoolArray:
        """Return whether each node is of one of `tiers`."""
        if len(tiers) == len(_TIERS):
            return np.ones(len(rows), dtype=np.bool_)
        table = np.array([tier in tiers for tier in _TIERS], dtype=np.bool_)
        allowed: BoolArray = table[self._tier[rows]]
        return allowed

    def tier_codes(self, rows: Index) -> IntArray:
        """Return the position of each node's tier in `Tier`."""
        return self._tier[rows]

    def is_cloud(self, rows: Index) -> BoolArray:
        """Return whether each node is of the cloud tier."""
        cloud: BoolArray = self._tier[rows] == _TIERS.index(Tier.CLOUD)
        return cloud

    def slots(self, rows: Index, resource: str = "") -> FloatArray:
        """Return the slots of each node for pods of tasks, of one resource or of all; 0 while it takes no new pods."""
        sizes, foreign = self.sizes(rows, resource), self._foreign_slots.get(resource)
        if foreign is not None:
            sizes = np.maximum(sizes - foreign[rows], 0.0)
        return sizes * self._is_open[rows]

    def sizes(self, rows: Index, resource: str = "") -> FloatArray:
        """Return the slots that each node has while it takes pods."""
        sizes: FloatArray = self._sizes.get(resource, self._unnamed)[rows]
        return sizes

    def fits(self, rules: NodeRules, rows: IntArray) -> FitArray:
        """Return the `Fit` of each node for a pod with these rules."""
        return self._fitting.fits(rules)[rows]

    def serves(self, model: str, rows: IntArray) -> BoolArray:
        """Return whether a ready model server of each node serves a model."""
        servers = self._servers.get(model)
        if servers is None:
            return np.zeros(len(rows), dtype=np.bool_)
        self._servers[model] = servers = extend(servers, len(self._tier))
        served: BoolArray = servers[rows]
        return served

    def served_slots(self, rows: Index) -> FloatArray:
        """Return how many requests the model servers of each node process at a time; inf where there are none."""
        return self._served_slots[rows]

    def gpus(self, rows: Index) -> FloatArray:
        """Return the GPUs of each node."""
        return self._gpus[rows]

    def count_gpus(self, name: str) -> float:
        """Return the GPUs of a node; 1 if it is unknown."""
        node = self.nodes.get(name)
        return node.gpus if node else 1.0

    def cpu_cores(self, rows: IntArray) -> FloatArray:
        """Return the processors of each node that its pods may request."""
        return self._cpu_cores[rows]

    def memory_bytes(self, rows: IntArray) -> FloatArray:
        """Return the memory of each node that its pods may request."""
        return self._memory_bytes[rows]

    def bandwidth_capacity_bps(self, rows: Index) -> FloatArray:
        """Return the uplink of each node."""
        return self._bandwidth_capacity_bps[rows]

    def bandwidth_used_bps(self, rows: Index) -> FloatArray:
        """Return the measured use of each node's uplink."""
        return self._bandwidth_used_bps[rows]

    def idle_w(self, rows: Index) -> FloatArray:
        """Return the idle power of each node, in watts; 0 where it is unknown."""
        return self._idle_w[rows]

    def _are_all(self, rows: IntArray) -> bool:
        """Whether as many rows as there are nodes are those of all nodes."""
        is_there = np.zeros(len(self._tier), dtype=np.bool_)
        is_there[rows] = True
        return bool(is_there[self.all_nodes()[1]].all())

    def _show_foreign(self, name: str) -> None:
        slots, row = self._foreign.get(name, {}), self._rows[name]
        for resource in slots.keys() - self._foreign_slots.keys() | ({""} if slots else set()):
            known = self._foreign_slots.get(resource, np.zeros(0))
            self._foreign_slots[resource] = extend(known, len(self._tier))
        for resource, foreign in self._foreign_slots.items():
            foreign[row] = slots.get(resource, 0.0) if resource else sum(slots.values())

    def _show_serving(self, node: Node, row: int) -> None:
        serving, shown = self.serving_of(node.name), self._models.get(row, frozenset())
        for model in shown ^ serving.models:
            servers = extend(self._servers.get(model, np.zeros(0, dtype=np.bool_)), row + 1)
            servers[row] = model in serving.models
            self._servers[model] = servers
            if not servers.any():
                del self._servers[model]
        self._models[row] = serving.models
        slots = UNKNOWN_SLOTS if serving.slots is None else serving.slots
        self._served_slots[row] = np.inf if not serving.models else slots if node.is_open else 0.0

    def _cover(self, rows: int) -> None:
        self._served_slots = extend(self._served_slots, rows, fill=np.inf)
        self._idle_w = extend(self._idle_w, rows)
        self._tier = extend(self._tier, rows)
        self._is_open = extend(self._is_open, rows)
        self._sizes = {resource: extend(sizes, rows) for resource, sizes in self._sizes.items()}
        self._foreign_slots = {resource: extend(slots, rows) for resource, slots in self._foreign_slots.items()}
        self._unnamed = extend(self._unnamed, rows)
        self._gpus = extend(self._gpus, rows, fill=1.0)
        self._cpu_cores = extend(self._cpu_cores, rows)
        self._memory_bytes = extend(self._memory_bytes, rows)
        self._bandwidth_capacity_bps = extend(self._bandwidth_capacity_bps, rows)
        self._bandwidth_used_bps = extend(self._bandwidth_used_bps, rows)
