"""Which nodes a task may be sent to now, whether they have room or not, and what excludes the others.

The first of these that holds of a node excludes it:

    tier            the task's tiers do not allow it                                                lasting
    size            it has fewer slots than the pod asks for, of the resource that it asks for      lasting
    selector        its labels do not satisfy the pod's nodeSelector or required node affinity      lasting
    taint           the pod does not tolerate a taint of it                                         lasting
    node-condition  the same of a taint by which Kubernetes shows the node's state
    server          no model server of it that is ready serves the model; served tasks only
    circuit         the last tasks were refused or failed there (circuits.py)
    hold            the task itself was refused, and waits before it is tried again
    avoided         an earlier attempt at the task ended badly there, and another node may take it

A lasting reason holds until node or task changes; where one holds for every node, the task can never be placed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from perllm.api.task import Tier
from perllm.placement.circuit import Circuit
from perllm.placement.circuits import Circuits
from perllm.placement.demand import PodDemand
from perllm.placement.fitting import Fit, find_untolerated
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import EXCLUDED_TIER, BoolArray, IntArray
from perllm.text import clean_line, cut

EXCLUDED_SIZE = "size"
EXCLUDED_SELECTOR = "selector"
EXCLUDED_TAINT = "taint"
EXCLUDED_CONDITION = "node-condition"
EXCLUDED_SERVER = "server"
EXCLUDED_CIRCUIT = "circuit"
EXCLUDED_HOLD = "hold"
EXCLUDED_AVOIDED = "avoided"

LASTING = (EXCLUDED_TIER, EXCLUDED_SIZE, EXCLUDED_SELECTOR, EXCLUDED_TAINT)
_BY_FIT = {Fit.SELECTOR: EXCLUDED_SELECTOR, Fit.TAINT: EXCLUDED_TAINT, Fit.PASSING_TAINT: EXCLUDED_CONDITION}

SEVERAL_NODES = "a task runs on one node: what needs several is for a LeaderWorkerSet, a JobSet or Volcano"

MAX_NAMED = 3

MAX_OBSTACLE = 2000
"""Characters of what excludes all nodes: a status also has room for why the task needs another pod."""


@dataclass(slots=True)
class Eligibility:
    """The nodes of some rows that a task may be sent to.

    Attributes:
        allowed: whether it may, shape (n,).
        excluded: number of nodes excluded, by the first reason.
        circuits: circuits that exclude nodes, by node.
    """

    allowed: BoolArray
    excluded: dict[str, int] = field(default_factory=dict)
    circuits: Mapping[str, Circuit] = field(default_factory=dict)

    @property
    def is_impossible(self) -> bool:
        """Whether no node can ever take the task, as nodes and task are."""
        count = len(self.allowed)
        return count > 0 and sum(self.excluded.get(reason, 0) for reason in LASTING) == count

    @property
    def is_blocked(self) -> bool:
        """Whether there are nodes, and none of them may take the task now."""
        return len(self.allowed) > 0 and not self.allowed.any()

    @property
    def is_unserved(self) -> bool:
        """Whether there are nodes, and no model server on those that the tiers of a served task allow."""
        unserved = self.excluded.get(EXCLUDED_SERVER, 0)
        return unserved > 0 and unserved + self.excluded.get(EXCLUDED_TIER, 0) == len(self.allowed)

    def keep(self, holds: BoolArray, reason: str) -> None:
        """Exclude the nodes that `holds` is not true of."""
        left = self.allowed & holds
        count = int(np.count_nonzero(self.allowed) - np.count_nonzero(left))
        if count:
            self.excluded[reason] = count
            self.allowed = left


class Gate:
    """Says which nodes a task may be sent to."""

    def __init__(self, fleet: Fleet, ledger: Ledger, circuits: Circuits) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._circuits = circuits

    def find(self, request: PlacementRequest, rows: IntArray, now_s: float) -> Eligibility:
        """Return which nodes of `rows` a task may be sent to; linear in their number."""
        found = self._find_open(request, rows)
        can_go_elsewhere = bool(request.avoided) and self._can_go_elsewhere(request)
        if self._circuits.is_held(request.task_id, now_s, can_go_elsewhere=can_go_elsewhere):
            found.keep(np.zeros(len(rows), dtype=np.bool_), EXCLUDED_HOLD)
        elif can_go_elsewhere:
            found.keep(~self._among(request.avoided, rows), EXCLUDED_AVOIDED)
        return found

    def describe(self, request: PlacementRequest, found: Eligibility, names: Sequence[str]) -> str:
        """Return what excludes all nodes, in words that do not change from one moment to the next."""
        unmet = [
            f"{self._describe_unmet(reason, request, names)} ({count} {'node' if count == 1 else 'nodes'})"
            for reason, count in found.excluded.items()
            if reason in (*LASTING, EXCLUDED_CONDITION, EXCLUDED_SERVER)
        ]
        parts = [f"no node satisfies: {', '.join(unmet)}"] if unmet else []
        if EXCLUDED_SIZE in found.excluded and self._needs_several_nodes(request.demand, names):
            parts.append(SEVERAL_NODES)
        if EXCLUDED_CIRCUIT in found.excluded:
            troubled = (f"{name} ({circuit.reason})" for name, circuit in sorted(found.circuits.items()))
            parts.append(f"not tried for now after refusals or failures there: {_name_some(troubled)}")
        if EXCLUDED_HOLD in found.excluded:
            parts.append(f"tried again after a pause, since its pods were refused by {_name_some(request.avoided)}")
        if EXCLUDED_AVOIDED in found.excluded:
            parts.append(f"waits for other nodes, since earlier attempts ended badly on {_name_some(request.avoided)}")
        return cut("; ".join(parts), MAX_OBSTACLE)

    def _find_open(self, request: PlacementRequest, rows: IntArray) -> Eligibility:
        """Return which nodes may take a task, its earlier attempts aside."""
        found, fleet, demand = Eligibility(np.ones(len(rows), dtype=np.bool_)), self._fleet, request.demand
        if len(request.tiers) < len(Tier):
            found.keep(fleet.tier_allowed(rows, request.tiers), EXCLUDED_TIER)
        if request.is_served:
            found.keep(fleet.serves(request.model, rows), EXCLUDED_SERVER)
            if demand.rules.selector:
                found.keep(fleet.fits(demand.rules, rows) != Fit.SELECTOR, EXCLUDED_SELECTOR)
        else:
            self._check_pod(found, demand, rows)
        found.circuits = self._circuits.blocking(
            request.task_id, request.namespace, request.model, self._ledger.__contains__
        )
        if found.circuits:
            found.keep(~self._among(found.circuits, rows), EXCLUDED_CIRCUIT)
        return found

    def _check_pod(self, found: Eligibility, demand: PodDemand, rows: IntArray) -> None:
        """Exclude the nodes that the pod of a task does not fit on."""
        if demand.resource or demand.slots > 1.0:
            found.keep(self._fleet.sizes(rows, demand.resource) >= demand.slots, EXCLUDED_SIZE)
        fits = self._fleet.fits(demand.rules, rows)
        if np.count_nonzero(fits):
            for fit, reason in _BY_FIT.items():
                found.keep(fits != fit, reason)

    def _can_go_elsewhere(self, request: PlacementRequest) -> bool:
        """Whether a node that a task does not avoid may take it, whether or not it has room."""
        _, rows = self._fleet.all_nodes()
        others = self._find_open(request, rows).allowed & ~self._among(request.avoided, rows)
        return bool((others & (self._fleet.slots(rows, request.resource) >= request.demand.slots)).any())

    def _needs_several_nodes(self, demand: PodDemand, names: Sequence[str]) -> bool:
        """Whether nodes have the resource that a pod asks for, and none of them has enough."""
        return 0.0 < max(self._fleet.nodes[name].slots_of(demand.resource) for name in names) < demand.slots

    def _among(self, names: Collection[str], rows: IntArray) -> BoolArray:
        among: BoolArray = np.isin(rows, self._fleet.rows(self._fleet.known(names)))
        return among

    def _describe_unmet(self, reason: str, request: PlacementRequest, names: Sequence[str]) -> str:
        nodes, demand = [self._fleet.nodes[name] for name in names], request.demand
        if reason == EXCLUDED_TIER:
            return f"tiers {', '.join(sorted(request.tiers))}"
        if reason == EXCLUDED_SIZE:
            largest = max(node.slots_of(demand.resource) for node in nodes)
            size = f": {demand.slots:g} on one node, the largest has {largest:g}"
            return f"{demand.resource}{size if largest else ''}"
        if reason == EXCLUDED_SERVER:
            return f"a ready model server of {request.model}"
        if reason == EXCLUDED_SELECTOR:
            return demand.rules.describe()
        taints = {str(taint): None for node in nodes for taint in find_untolerated(demand.rules, node.taints)}
        return f"toleration of {_name_some(taints)}"


def _name_some(texts: Iterable[str]) -> str:
    known = sorted(texts)
    more = len(known) - MAX_NAMED
    return clean_line(", ".join(known[:MAX_NAMED]) + (f" and {more} more" if more > 0 else ""))
