"""Follows the agents of nodes: what their model servers offer to served tasks, and whether they are alive.

An agent renews a Lease. How long ago that was is judged by the operator's own clock, from the moment at which it saw
the renewal, since the clocks of nodes may be wrong. While the operator cannot see renewals, no Lease expires; nor while
it is stopped itself.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from perllm.api import names
from perllm.api.node_profile import ServingStatus
from perllm.api.node_server import InferenceEngine, NodeServerStatus
from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object
from perllm.cluster.times import parse_time_s
from perllm.placement.serving import NOTHING, Serving
from perllm.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
LATE_S = 1.0
"""An examination that comes so much later than planned shows that the operator was stopped, or very busy."""

DURATION_S = 30.0
RENEWAL_S = 10.0
MARGIN_S = 5.0
"""How much later than its agent the operator takes a Lease to be expired, so that the agent has stopped by then."""

ONE_BATCH = frozenset({InferenceEngine.VLLM, InferenceEngine.SGLANG, InferenceEngine.TGI})
"""Engines that write the tasks of all their models in one batch. Others begin a process for each model."""

FORMER_PATIENCE_S = 90.0
"""Where agents have just been switched off: longer than they usually have to finish what is in process."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the model servers of a node offer, and what people see of it."""

    node: str
    serving: Serving
    shown: ServingStatus


@dataclass(frozen=True, slots=True)
class SeenLease:
    """The Lease of the agent of a node; times as the agent wrote them, Unix seconds."""

    node: str
    renewed_s: float
    duration_s: float


def read_offer(item: Object) -> Offer:
    """Return what an `LLMNodeServer` offers.

    Raises:
        ValidationError: it is malformed.
    """
    status = NodeServerStatus.model_validate(as_object(item.get("status")))
    ready = [server for server in status.servers if server.ready]
    slots = [server.slots for server in ready]
    models = frozenset(model for server in ready for model in server.models)
    loaded = frozenset(model for server in ready for model in server.models if model not in server.unloaded)
    serving = Serving(
        models=models,
        unloaded=models - loaded,
        slots=None if None in slots else float(sum(one for one in slots if one is not None)),
        foreign=float(sum(server.foreign for server in ready)),
        batches=frozenset(
            frozenset(server.models) for server in ready if server.engine in ONE_BATCH and len(server.models) > 1
        ),
    )
    busy = str(status.running) if serving.slots is None else f"{status.running}/{serving.slots:g}"
    shown = ServingStatus(ready=status.ready, models=status.models, busy=busy, foreign=status.foreign)
    return Offer(item["metadata"]["name"], serving, shown)


def read_lease(item: Object) -> SeenLease | None:
    """Return a Lease if it is that of an agent, otherwise None."""
    name, spec = str(item["metadata"]["name"]), as_object(item.get("spec"))
    renewed_s, duration_s = parse_time_s(spec.get("renewTime")), spec.get("leaseDurationSeconds")
    if not name.startswith(names.AGENT_LEASE_PREFIX) or renewed_s is None:
        return None
    duration_s = float(duration_s) if type(duration_s) is int and duration_s > 0 else DURATION_S
    return SeenLease(name.removeprefix(names.AGENT_LEASE_PREFIX), renewed_s, duration_s)


async def lose_former_runs(lose_runs: Callable[[Callable[[str], bool]], None]) -> None:
    """Take all requests as lost, regularly until cancelled: they were placed while there were agents.

    Args:
        lose_runs: called with a test of whether a node's requests are lost.
    """
    while True:
        await asyncio.sleep(FORMER_PATIENCE_S)
        lose_runs(lambda _: True)


class NodeAgents:
    """The agents of all nodes.

    Args:
        scheduler: receives what model servers offer.
        lose_runs: called regularly with a test of whether a node's requests are lost.
        show: called repeatedly with what a node serves; None if it has no agent.
        can_see: whether renewals can be seen at the moment.
        is_ready: whether a node belongs to the fleet, and is ready.
        now_s: monotonic clock.
        unix_now: wall clock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        lose_runs: Callable[[Callable[[str], bool]], None],
        *,
        show: Callable[[str, ServingStatus | None], None],
        can_see: Callable[[], bool],
        is_ready: Callable[[str], bool],
        now_s: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._lose_runs = lose_runs
        self._show = show
        self._can_see = can_see
        self._is_ready = is_ready
        self._now_s = now_s
        self._unix_now = unix_now
        self._offers: dict[str, Offer] = {}
        self._passed: dict[str, Serving] = {}
        self._until_s: dict[str, float] = {}
        self._begun_s = self._examined_s = now_s()
        self._are_known = False

    def on_offer(self, old: Offer | None, new: Offer | None) -> None:
        """Handle the model servers of a node that were added, changed or deleted."""
        if new is not None:
            self._offers[new.node] = new
            self._pass_on(new.node)
        elif old is not None:
            self._offers.pop(old.node, None)
            self._pass_on(old.node)

    def on_lease(self, old: SeenLease | None, new: SeenLease | None) -> None:
        """Handle a Lease that was created, renewed or deleted."""
        if new is not None:
            is_fresh = old is not None or self._are_known
            # What is seen at the start may have expired long ago. What appears later has just been created.
            passed_s = 0.0 if is_fresh else min(max(self._unix_now() - new.renewed_s, 0.0), new.duration_s)
            self._until_s[new.node] = self._now_s() + new.duration_s + MARGIN_S - passed_s
            self._pass_on(new.node)
        elif old is not None:
            self._until_s.pop(old.node, None)
            self._pass_on(old.node)

    def is_alive(self, node: str) -> bool:
        """Whether the Lease of a node's agent has not expired."""
        return self._now_s() < self._until_s.get(node, 0.0)

    def is_lost(self, node: str) -> bool:
        """Whether requests on a node will not be reported; soon after the start a Lease may not be known yet."""
        return not self.is_alive(node) and self._now_s() >= self._begun_s + DURATION_S + MARGIN_S

    def count(self, *, is_alive: bool) -> int:
        """Return how many agents of nodes that are ready are alive, or are not: a node that is not has no agent."""
        return sum(self.is_alive(node) is is_alive for node in self._until_s if self._is_ready(node))

    async def run(self) -> None:
        """Examine the Leases until cancelled."""
        # A replica on standby has waited until here.
        self._begun_s = self._examined_s = self._now_s()
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.examine()

    def examine(self) -> None:
        """Take nodes whose agents are not alive out of service, and their requests as lost."""
        late_s, self._examined_s = self._now_s() - self._examined_s - INTERVAL_S, self._now_s()
        if late_s > LATE_S:
            self._begun_s += late_s
            self._until_s = {node: until_s + late_s for node, until_s in self._until_s.items()}
        if not self._can_see():
            self._extend()
            return
        for node in self._offers:
            self._pass_on(node)
        if not self._are_known and self._now_s() >= self._begun_s + RENEWAL_S + MARGIN_S:
            # The Lease of an agent may have seemed expired because the API server was away, or its clock is wrong.
            self._are_known = True
            self._scheduler.note_servers_known()
        self._lose_runs(self.is_lost)

    def _extend(self) -> None:
        """Let Leases last until renewals can be seen again, but none that is known to have expired before."""
        now_s = self._now_s()
        for node, until_s in self._until_s.items():
            if until_s > now_s or not self._are_known:
                self._until_s[node] = max(until_s, now_s + DURATION_S + MARGIN_S)

    def _pass_on(self, node: str) -> None:
        before, offer, is_alive = self._passed.pop(node, NOTHING), self._offers.get(node), self.is_alive(node)
        serving = offer.serving if offer is not None and is_alive else NOTHING
        if offer is not None:
            self._passed[node] = serving
        self._show(node, offer.shown if offer is not None and is_alive else ServingStatus() if offer else None)
        if serving == before:
            return
        if before.models and not serving.models:
            log.warning("node %s: no model server takes requests%s", node, self._explain(node))
        elif serving.models and not before.models:
            log.info("node %s: model servers take requests for %s", node, ", ".join(sorted(serving.models)))
        self._scheduler.put_serving(node, serving)

    def _explain(self, node: str) -> str:
        return "" if self.is_alive(node) else "; its agent has not renewed its Lease"
