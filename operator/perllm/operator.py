"""The operator: every part, wired together and run until told to stop.

Start    learned state, then nodes, then pods, then tasks: whatever refers to something finds it.
Stop     no new tasks; statuses and learned state in memory are written; then everything ends.
"""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import requests
from aiohttp import web
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import Credentials
from perllm.cluster.events import EventRecorder
from perllm.cluster.informer import Informer
from perllm.cluster.node import NodeLabels, read_node
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.controller import Controller
from perllm.controller.settlement import Settlement
from perllm.controller.watch import TaskWatch
from perllm.extender.extender import Extender
from perllm.extender.server import build_app
from perllm.learning.learner import Learner
from perllm.learning.profiles import ProfileStore
from perllm.metrics import OperatorMetrics
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placer
from perllm.telemetry.attribution import IdlePower
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.snapshot import Snapshot
from perllm.telemetry.source import PrometheusSource

log = logging.getLogger(__name__)

BITS_PER_MEGABIT = 1e6
HOUSEKEEPING_INTERVAL_S = 0.5
DRAIN_TIMEOUT_S = 10.0


class Operator:
    """All parts of a running operator."""

    def __init__(self, config: Config, client: Client, credentials: Credentials, registry: CollectorRegistry) -> None:
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._config = config
        self._registry = registry
        self._metrics = OperatorMetrics(registry)
        self._policy = config.policy.build()
        self._learner = Learner(self._policy)
        self._fleet = Fleet()
        self._labels = NodeLabels(config.nodes.tier_label, config.nodes.gpu_type_label, config.nodes.gpu_resource)
        self._source = PrometheusSource(config.telemetry, requests.Session())
        self._telemetry = Telemetry(
            self._source, config.telemetry, self._node_addresses, time.time, TelemetryMetrics(registry)
        )
        self._placer = Placer(
            self._policy,
            self._learner,
            self._fleet,
            Ledger(),
            transmission_j_per_bit={tier: config.nodes.transmission_microjoule_per_bit[tier] * 1e-6 for tier in Tier},
            metrics_age_s=self._metrics_age_s,
            unix_now=time.time,
            now=time.monotonic,
        )
        self._events = EventRecorder(client, instance=socket.gethostname(), unix_now=time.time)
        settlement = Settlement(
            self._telemetry.energy,
            IdlePower(),
            patience_s=config.energy_patience_s,
            retry_s=max(config.telemetry.interval_s / 2, 0.1),
            window_s=config.telemetry.history_s,
            now=time.monotonic,
        )
        self._controller = Controller(
            client,
            self._placer,
            settlement,
            Announcer(self._events, self._metrics),
            self._metrics,
            unix_now=time.time,
            scheduler_name=config.scheduler_name,
        )
        self._profiles = ProfileStore(client, self._learner, policy=self._policy.name, node_of=self._fleet.nodes.get)
        self._nodes = Informer(client, "/api/v1/nodes", self._on_node)
        self._pods = Informer(
            client, "/api/v1/pods", self._controller.on_pod, query={"labelSelector": names.TASK_LABEL}
        )
        self._watch = TaskWatch(
            credentials,
            lambda item, deleted: self._controller.on_task(item, deleted=deleted),
            self._metrics,
            namespaces=config.namespaces,
        )
        self._extender = Extender(self._placer, client, self._controller.request_of)

    def stop(self) -> None:
        """Ask for the end; a start that still waits for the API server is given up."""
        self._stopping.set()
        if self._starting is not None:
            self._starting.cancel()

    async def run(self) -> None:
        """Work until `stop` is called, then leave nothing unwritten."""
        self._starting = asyncio.current_task()
        try:
            await self._run()
        except asyncio.CancelledError:
            if self._starting is None or not self._stopping.is_set():
                raise

    async def _run(self) -> None:
        outcomes = await self._profiles.load()
        log.info("learned state restored: %d outcomes", outcomes)
        async with AsyncExitStack() as stack:
            stack.callback(self._source.close)
            await stack.enter_async_context(self._serve())
            work = await stack.enter_async_context(_cancelled_at_exit())
            work.create_task(self._nodes.run())
            await self._nodes.synced.wait()
            work.create_task(self._telemetry.run())
            work.create_task(self._pods.run())
            await self._pods.synced.wait()
            work.create_task(self._controller.run())
            work.create_task(self._events.run())
            work.create_task(self._profiles.run())
            work.create_task(self._keep_house())
            self._watch.start()
            stack.push_async_callback(self._watch.stop)
            log.info("serving %d nodes with policy %s", len(self._fleet.nodes), self._policy.name)
            self._starting = None
            await self._stopping.wait()
            log.info("stopping")
            await self._watch.stop()
            await self._write_out()

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._controller.writer.drain()
                await self._profiles.flush()
        except TimeoutError:
            log.warning("not everything could be written; the next start rebuilds it from the cluster")

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        """Serve the extender on the loopback interface, and health where the configuration says."""
        server = self._config.server
        alive = {"the task watch can run": lambda: not self._watch.is_broken}
        ready = {
            "tasks are watched": lambda: self._watch.is_ready,
            "nodes were listed": self._nodes.synced.is_set,
            "pods were listed": self._pods.synced.is_set,
            "some node carries the tier label": lambda: bool(self._fleet.nodes),
        }
        sites = (
            (build_app(self._extender, self._metrics), "127.0.0.1", server.extender_port),
            (health.build_app(self._registry, alive=alive, ready=ready), server.health_host, server.health_port),
        )
        runners = []
        try:
            for app, host, port in sites:
                runner = web.AppRunner(app, access_log=None)
                await runner.setup()
                runners.append(runner)
                await web.TCPSite(runner, host, port).start()
            yield
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _keep_house(self) -> None:
        """Do beside the hot path what spares it work: bring new figures to the fleet, drop stale reservations."""
        seen: Snapshot | None = None
        while True:
            snapshot = self._telemetry.snapshot
            if snapshot is not seen:
                for name in self._fleet.nodes:
                    self._fleet.put_bandwidth(name, self._bandwidth(name))
                self._placer.note_bandwidth()
                seen = snapshot
            for task_id in self._placer.expire():
                log.warning("the placement of task %s was not carried out in time and is forgotten", task_id)
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        node = read_node(new, self._labels) if new else None
        if node is None:
            gone = new or old
            if gone is not None:
                self._fleet.remove(gone["metadata"]["name"])
                self._learner.cool(gone["metadata"]["name"])
                self._controller.dispatcher.renew()
            return
        known = self._fleet.nodes.get(node.name)
        if known != node:
            row = self._learner.register(node.name, node.gpu_type)
            if known is not None and known.uid != node.uid:
                self._learner.cool(node.name)
            self._fleet.put(node, row, self._bandwidth(node.name, node.tier))
            self._placer.note_bandwidth()
            self._controller.dispatcher.renew()

    def _bandwidth(self, name: str, tier: Tier | None = None) -> Bandwidth:
        """Return a node's uplink: as measured, else as configured for its tier."""
        figures = self._telemetry.snapshot.of(name)
        total_bps = figures.bandwidth_total_bps.fresh_value
        if total_bps is None:
            known = tier or self._fleet.nodes[name].tier
            total_bps = self._config.nodes.default_bandwidth_mbit_s[known] * BITS_PER_MEGABIT
        return Bandwidth(total_bps, figures.bandwidth_used_bps.fresh_value or 0.0)

    def _metrics_age_s(self, name: str) -> float | None:
        """Return the age of a node's figures; None unless its power is known and fresh."""
        figures = self._telemetry.snapshot.of(name)
        return None if figures.power_w.fresh_value is None else figures.age_s(time.time())

    def _node_addresses(self) -> Mapping[str, Collection[str]]:
        return {name: node.addresses for name, node in self._fleet.nodes.items()}


@asynccontextmanager
async def _cancelled_at_exit() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that is cancelled, not awaited, at the end; a task that breaks ends the whole group."""

    class _EndError(Exception):
        pass

    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _EndError
    except* _EndError:
        pass
