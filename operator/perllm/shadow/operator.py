"""The operator in shadow mode: next to any scheduler, it writes nothing but the profiles of nodes.

It watches nodes and pods, reads Prometheus, and learns. There are no tasks, no kube-scheduler of its own, one replica.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from random import Random
from typing import IO

import requests
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.informer import Informer, wait_for_first_lists
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.config import Config
from perllm.controller.clocks import Clocks
from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.loop_lag import watch_loop
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.nodes.profile_store import ProfileStore
from perllm.nodes.upkeep import NodeUpkeep
from perllm.placement.counterfactual import Savings
from perllm.placement.savings import SavedUnit
from perllm.scheduling.assembly import build_scheduler, read_settings
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.shadow.observer import ShadowObserver
from perllm.shadow.report import ShadowReport
from perllm.shadow.selection import read_shadowed_pod
from perllm.supervision import cancelled_at_exit, keep_running, serve
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.source import PrometheusSource

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 10.0
PODS_PATIENCE_S = 60.0


class ShadowOperator:
    """All parts of an operator in shadow mode."""

    def __init__(
        self, config: Config, client: Client, registry: CollectorRegistry, journal: IO[bytes] | None = None
    ) -> None:
        self._config = config
        self._client = client
        self._registry = registry
        self._stopping = asyncio.Event()
        self._metrics = OperatorMetrics(registry)
        rng = self._rng = Random()
        self._guard = Guard(lambda kind: self._metrics.faults.labels(kind).inc(), rng)
        self._outages = Outages(time.monotonic)
        self._writes = WriteQueue(self._guard, self._outages, rng)
        self._source = PrometheusSource(config.telemetry, requests.Session())
        self._telemetry = Telemetry(
            self._source,
            config.telemetry,
            lambda: self._upkeep.addresses,
            time.time,
            TelemetryMetrics(registry),
            guard=self._guard,
            rng=rng,
        )
        scheduler, parts = build_scheduler(
            read_settings(config, seed=rng.getrandbits(32)),
            Inputs(HeldClock(time.monotonic, time.time), journal),
            count_discarded=lambda reason: self._metrics.outcomes_refused.labels(reason).inc(),
        )
        self._fleet = parts.fleet
        self._profiles = ProfileStore(
            client,
            self._writes,
            parts.learner,
            restore=scheduler.restore,
            policy=parts.policy.name,
            node_of=parts.fleet.nodes.get,
            guard=self._guard,
            outages=self._outages,
            rng=rng,
            instance=config.instance,
            count_forgotten=self._metrics.models_forgotten.inc,
        )
        self._build_observer(scheduler, parts)
        self._nodes = Informer(
            client,
            "/api/v1/nodes",
            self._upkeep.read,
            self._upkeep.on_node,
            kind="node",
            guard=self._guard,
            outages=self._outages,
            rng=rng,
        )
        self._pods = [self._watch_pods(namespace) for namespace in config.namespaces or (None,)]

    def _build_observer(self, scheduler: Scheduler, parts: Parts) -> None:
        config, metrics = self._config, self._metrics
        node_health = NodeHealth(
            scheduler,
            parts.circuits,
            metrics,
            show=lambda *_: None,
            now_s=time.monotonic,
            unix_now=time.time,
        )
        clocks = Clocks(parts.fleet.nodes.__contains__, metrics.show_clock_skew)
        savings = Savings(is_shadow=True)
        for unit in SavedUnit:
            metrics.show_savings(unit, partial(savings.of, unit))
        self._observer = ShadowObserver(
            scheduler,
            parts.fleet,
            settlement=Settlement(
                self._telemetry.energy,
                IdlePower(),
                ForeignLoad(config.telemetry.history_s),
                patience_s=config.energy_patience_s,
                retry_s=max(config.telemetry.interval_s / 2, 0.1),
                window_s=config.telemetry.history_s,
                now=time.monotonic,
            ),
            savings=savings,
            node_health=node_health,
            clocks=clocks,
            report=ShadowReport(metrics),
            guard=self._guard,
            unix_now=time.time,
        )
        self._upkeep = NodeUpkeep(
            scheduler,
            parts.fleet,
            config.nodes,
            health=node_health,
            snapshot=lambda: self._telemetry.snapshot,
            guard=self._guard,
            on_gone=clocks.forget,
        )

    def _watch_pods(self, namespace: str | None) -> Informer[AnnotatedPod]:
        config = self._config
        return Informer(
            self._client,
            names.pods_path(namespace),
            partial(read_shadowed_pod, settings=config.shadow, gpu_resources=config.nodes.resources),
            self._observer.on_pod,
            kind="pod",
            guard=self._guard,
            outages=self._outages,
            rng=self._rng,
        )

    def stop(self) -> None:
        """Stop the operator."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop` is called, then write what is left to write.

        Raises:
            ApiError: the API server denies a request that the operator cannot do without.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            work.create_task(self._start(work))
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    async def _start(self, work: asyncio.TaskGroup) -> None:
        self._begin(work, "watch of the event loop", partial(watch_loop, self._metrics.loop_lag.observe))
        outcomes = await self._profiles.load()
        log.info("learned state restored: %d outcomes", outcomes)
        self._begin(work, "watch of nodes", self._nodes.run)
        await self._nodes.synced.wait()
        self._begin(work, "telemetry", self._telemetry.run)
        self._begin(work, "writes", self._writes.run)
        self._begin(work, "profiles", self._profiles.run)
        self._begin(work, "upkeep of nodes", self._upkeep.run)
        for pods in self._pods:
            self._begin(work, "watch of pods", pods.run)
        for path in await wait_for_first_lists(self._pods, PODS_PATIENCE_S):
            log.warning("started without %s, which cannot be read yet: pods there are not counted", path)
        self._metrics.active.set(1)
        log.info("shadow mode: nothing is placed, %d nodes", len(self._fleet.nodes))

    def _begin(self, work: asyncio.TaskGroup, name: str, part: Callable[[], Awaitable[None]]) -> None:
        work.create_task(keep_running(name, part, self._guard, self._rng))

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                self._profiles.save()
                await self._writes.drain()
        except TimeoutError:
            log.warning("not everything that was learned could be written")

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        server = self._config.server
        ready = {
            "nodes were listed": self._nodes.synced.is_set,
            "pods were listed": lambda: all(pods.synced.is_set() for pods in self._pods),
            "some node carries the tier label": lambda: bool(self._fleet.nodes),
        }
        app = health.build_app(self._registry, alive={}, ready=ready)
        return serve(app, server.health_host, server.health_port)
