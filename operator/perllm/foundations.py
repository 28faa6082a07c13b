"""The parts of every operator, whether it places tasks or only watches: scheduler, telemetry, profiles, writes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import IO, TypeVar

import requests
from prometheus_client import CollectorRegistry

from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer, OnChange
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.config import Config
from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.nodes.profile_store import ProfileStore
from perllm.nodes.upkeep import NodeUpkeep
from perllm.placement.fleet import Fleet
from perllm.scheduling.assembly import build_scheduler, read_settings
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.supervision import keep_running
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.source import PrometheusSource

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundations:
    """The parts that every operator has; `lay_foundations` wires them.

    Attributes:
        config: of the operator.
        client: the API server.
        registry: of all metrics.
        now_s: monotonic clock.
        unix_now: wall clock.
        rng: for jitter.
        metrics: of the operator.
        guard: contains failures about single objects.
        outages: of the API server.
        writes: the queue of writes.
        scheduler: decides about tasks.
        parts: of the scheduler.
        source: Prometheus.
        telemetry: figures of nodes.
        foreign: the load of nodes by others.
    """

    config: Config
    client: Client
    registry: CollectorRegistry
    now_s: Callable[[], float]
    unix_now: Callable[[], float]
    rng: Random
    metrics: OperatorMetrics
    guard: Guard
    outages: Outages
    writes: WriteQueue
    scheduler: Scheduler
    parts: Parts
    source: PrometheusSource
    telemetry: Telemetry
    foreign: ForeignLoad

    def build_profiles(self) -> ProfileStore:
        """Return the store of learned state."""
        return ProfileStore(
            self.client,
            self.writes,
            self.parts.learner,
            restore=self.scheduler.restore,
            policy=self.parts.policy.name,
            node_of=self.parts.fleet.nodes.get,
            guard=self.guard,
            outages=self.outages,
            rng=self.rng,
            instance=self.config.instance,
            count_forgotten=self.metrics.learning.models_forgotten.inc,
            unix_now=self.unix_now,
        )

    def build_settlement(self) -> Settlement:
        """Return the settlement of the energy of tasks."""
        telemetry = self.config.telemetry
        return Settlement(
            self.telemetry.energy,
            IdlePower(self.scheduler.put_idle_power),
            self.foreign,
            count_gpus=self.parts.fleet.count_gpus,
            patience_s=self.config.energy_patience_s,
            retry_s=max(telemetry.interval_s / 2, 0.1),
            window_s=telemetry.history_s,
            now=self.now_s,
        )

    def build_upkeep(
        self, health: NodeHealth, on_gone: Callable[[str], None], on_joined: Callable[[], None] = lambda: None
    ) -> NodeUpkeep:
        """Return the upkeep of nodes, which reports the name of each node that has left, and that one has joined."""
        return NodeUpkeep(
            self.scheduler,
            self.parts.fleet,
            self.config.nodes,
            health=health,
            snapshot=lambda: self.telemetry.snapshot,
            guard=self.guard,
            on_gone=on_gone,
            on_joined=on_joined,
        )

    def build_informer(
        self,
        kind: str,
        path: str,
        read: Callable[[Object], T | None],
        on_change: OnChange[T],
        *,
        metadata_only: bool = False,
        **query: str,
    ) -> Informer[T]:
        """Return an informer of the objects of a path."""
        return Informer(
            self.client,
            path,
            read,
            on_change,
            kind=kind,
            query=query,
            metadata_only=metadata_only,
            guard=self.guard,
            outages=self.outages,
            rng=self.rng,
        )

    def begin(self, work: asyncio.TaskGroup, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part until the group ends; if it fails, the error is logged and the part is restarted."""
        work.create_task(keep_running(name, part, self.guard, self.rng))


def lay_foundations(
    config: Config,
    client: Client,
    registry: CollectorRegistry,
    *,
    now_s: Callable[[], float],
    unix_now: Callable[[], float],
    journal: IO[bytes] | None = None,
    wake: Callable[[], None] = lambda: None,
) -> Foundations:
    """Return the parts that every operator has.

    Args:
        config: of the operator.
        client: the API server.
        registry: of all metrics.
        now_s: monotonic clock.
        unix_now: wall clock.
        journal: receives the inputs of the scheduler; None to record nothing.
        wake: called whenever there may be something to decide.
    """
    rng, metrics = Random(), OperatorMetrics(registry)
    guard = Guard(lambda kind: metrics.process.faults.labels(kind).inc(), rng)
    outages = Outages(now_s)
    scheduler, parts = build_scheduler(
        read_settings(config, seed=rng.getrandbits(32)),
        Inputs(HeldClock(now_s, unix_now), journal, wake),
        count_discarded=lambda reason: metrics.learning.discarded.labels(reason).inc(),
        metrics_age_s=lambda node: _find_metrics_age_s(telemetry, node, unix_now()),
    )
    source = PrometheusSource(config.telemetry, requests.Session())
    list_addresses, telemetry_metrics = partial(_list_addresses, parts.fleet), TelemetryMetrics(registry)
    telemetry = Telemetry(source, config.telemetry, list_addresses, unix_now, telemetry_metrics, guard=guard, rng=rng)
    return Foundations(
        config=config,
        client=client,
        registry=registry,
        now_s=now_s,
        unix_now=unix_now,
        rng=rng,
        metrics=metrics,
        guard=guard,
        outages=outages,
        writes=WriteQueue(guard, outages, rng),
        scheduler=scheduler,
        parts=parts,
        source=source,
        telemetry=telemetry,
        foreign=ForeignLoad(config.telemetry.history_s),
    )


def _list_addresses(fleet: Fleet) -> Mapping[str, Collection[str]]:
    """Return the addresses of each node, by which its figures are found."""
    return {name: node.addresses for name, node in fleet.nodes.items()}


def _find_metrics_age_s(telemetry: Telemetry, node: str, unix_s: float) -> float | None:
    """Return the age of a node's figures; None unless its power is known and fresh."""
    figures = telemetry.snapshot.of(node)
    return None if figures.power_w.fresh_value is None else figures.age_s(unix_s)
