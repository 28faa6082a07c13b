"""The operator: every part, wired together and run until told to stop.

Start    its turn, where several replicas take turns; then learned state, nodes, pods, tasks: whatever refers to
         something finds it. kube-scheduler is answered once nodes and pods are known.
Stop     no new tasks; statuses and learned state in memory are written; then everything ends.
Lost     its turn has passed to another replica: everything ends at once and nothing is written any more.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from random import Random

import requests
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import Credentials
from perllm.cluster.events import EventRecorder
from perllm.cluster.informer import Informer, wait_for_first_lists
from perllm.cluster.leadership import Leadership, LeadershipError, find_namespace
from perllm.cluster.node import NodeLabels, read_node
from perllm.cluster.outages import Outages
from perllm.cluster.pod_ends import PodPatience
from perllm.cluster.writes import WriteQueue
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.controller import Controller
from perllm.controller.watch import TaskWatch
from perllm.energy.attribution import IdlePower
from perllm.energy.settlement import Settlement
from perllm.extender.extender import Extender
from perllm.extender.server import build_app
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.metrics import OperatorMetrics
from perllm.nodes.circuit_writer import CircuitWriter
from perllm.nodes.profile_store import ProfileStore
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placer
from perllm.scheduling.admission import Admission
from perllm.scheduling.shares import Shares
from perllm.supervision import cancelled_at_exit, keep_running, serve
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.snapshot import Snapshot
from perllm.telemetry.source import PrometheusSource

log = logging.getLogger(__name__)

BITS_PER_MEGABIT = 1e6
HOUSEKEEPING_INTERVAL_S = 0.5
DRAIN_TIMEOUT_S = 10.0
PODS_PATIENCE_S = 60.0
"""Without the pods of a namespace its nodes seem emptier than they are; so all are waited for, within reason."""


class Operator:
    """All parts of a running operator."""

    def __init__(self, config: Config, client: Client, credentials: Credentials, registry: CollectorRegistry) -> None:
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._learned = asyncio.Event()
        self._config = config
        self._registry = registry
        self._metrics = OperatorMetrics(registry)
        rng = self._rng = Random()
        self._guard = Guard(lambda kind: self._metrics.faults.labels(kind).inc(), rng)
        self._outages = Outages(time.monotonic)
        self._writes = WriteQueue(self._guard, self._outages, rng)
        self._policy = config.policy.build()
        self._learner = Learner(self._policy, lambda reason: self._metrics.outcomes_refused.labels(reason).inc())
        self._fleet = Fleet()
        self._labels = NodeLabels(config.nodes.tier_label, config.nodes.gpu_type_label, config.nodes.gpu_resource)
        self._source = PrometheusSource(config.telemetry, requests.Session())
        self._telemetry = Telemetry(
            self._source,
            config.telemetry,
            self._node_addresses,
            time.time,
            TelemetryMetrics(registry),
            guard=self._guard,
            rng=rng,
        )
        self._placer = Placer(
            self._policy,
            self._learner,
            self._fleet,
            Ledger(),
            circuits=Circuits(rng),
            transmission_j_per_bit={tier: config.nodes.transmission_microjoule_per_bit[tier] * 1e-6 for tier in Tier},
            metrics_age_s=self._metrics_age_s,
            unix_now=time.time,
            now=time.monotonic,
        )
        events = EventRecorder(client, self._writes, instance=socket.gethostname(), unix_now=time.time)
        settlement = Settlement(
            self._telemetry.energy,
            IdlePower(),
            patience_s=config.energy_patience_s,
            retry_s=max(config.telemetry.interval_s / 2, 0.1),
            window_s=config.telemetry.history_s,
            now=time.monotonic,
        )
        self._profiles = ProfileStore(
            client,
            self._writes,
            self._learner,
            policy=self._policy.name,
            node_of=self._fleet.nodes.get,
            guard=self._guard,
            outages=self._outages,
            rng=rng,
            instance=config.instance,
            count_forgotten=self._metrics.models_forgotten.inc,
        )
        circuits = CircuitWriter(
            client,
            self._writes,
            node_of=self._fleet.nodes.get,
            create_profile=self._profiles.create,
            prefix=names.profile_prefix(config.instance),
        )
        self._controller = Controller(
            client,
            self._placer,
            settlement,
            Announcer(events, self._metrics),
            self._metrics,
            writes=self._writes,
            guard=self._guard,
            unix_now=time.time,
            admission=Admission(config.admission.min_hit_chance, config.admission.probe_share),
            scheduler_name=config.scheduler_name,
            shares=Shares(config.fairness.weights),
            gpu_resource=config.nodes.gpu_resource,
            show_circuit=circuits.put,
            patience=PodPatience(start_s=config.start_timeout_s),
        )
        self._leadership = _follow_lease(config, client, self._outages)
        inform = partial(Informer, client, guard=self._guard, outages=self._outages, rng=rng)
        self._nodes = inform("/api/v1/nodes", self.on_node, kind="node")
        self._pods = [
            inform(path, self._controller.on_pod, kind="pod", query={"labelSelector": names.TASK_LABEL})
            for path in map(names.pods_path, config.namespaces or (None,))
        ]
        self._obstacles = [
            inform(path, self._controller.on_quota, kind="quota")
            for path in map(names.quotas_path, config.namespaces or (None,))
        ]
        if not config.namespaces:
            self._obstacles.append(inform("/api/v1/namespaces", self._controller.on_namespace, kind="namespace"))
        self._watch = TaskWatch(
            credentials,
            lambda item, deleted: self._controller.on_task(item, deleted=deleted),
            self._controller.on_list,
            self._metrics,
            self._outages,
            rng,
            namespaces=config.namespaces,
        )
        decisions = self._controller.decisions
        self._extender = Extender(self._placer, client, self._controller.request_of, decisions.note_bound)

    def stop(self) -> None:
        """Ask for the end; a start that still waits for the API server is given up."""
        self._stopping.set()
        if self._starting is not None:
            self._starting.cancel()

    async def run(self) -> None:
        """Work until `stop` is called, then leave nothing unwritten.

        Raises:
            LeadershipError: another replica may work from now on.
            ApiError: the API server refuses what cannot be done without.
        """
        self._starting = asyncio.current_task()
        try:
            await self._run()
        except asyncio.CancelledError:
            if self._starting is None or not self._stopping.is_set():
                raise
        except LeadershipError:
            if not self._stopping.is_set():
                raise

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(self._source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            await self._take_turn(work)
            outcomes = await self._profiles.load()
            self._learned.set()
            log.info("learned state restored: %d outcomes", outcomes)
            for name in self._profiles.tripped:
                self._controller.node_health.show(name)
            self._begin(work, "watch of nodes", self._nodes.run)
            await self._nodes.synced.wait()
            self._begin(work, "telemetry", self._telemetry.run)
            for pods in self._pods:
                self._begin(work, "watch of pods", pods.run)
            for path in await wait_for_first_lists(self._pods, PODS_PATIENCE_S):
                log.warning("started without %s, which cannot be read yet: what runs there is not counted", path)
            for obstacles in self._obstacles:
                self._begin(work, "watch of quotas and namespaces", obstacles.run)
            self._begin(work, "writes", self._writes.run)
            self._begin(work, "dispatcher", self._controller.dispatcher.run)
            self._begin(work, "profiles", self._profiles.run)
            self._begin(work, "housekeeping", self._keep_house)
            self._watch.start()
            stack.push_async_callback(self._watch.stop)
            # Last, so that it ends first: the watch may take seconds to end, and nobody may be answered then.
            await stack.enter_async_context(self._serve_extender())
            log.info("serving %d nodes with policy %s", len(self._fleet.nodes), self._policy.name)
            self._starting = None
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    def _begin(self, work: asyncio.TaskGroup, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part to the end of the group; what breaks it is told, and it is started again."""
        work.create_task(keep_running(name, part, self._guard, self._rng))

    async def _take_turn(self, work: asyncio.TaskGroup) -> None:
        """Return when this replica is the one that works; the group breaks when it is that no more."""
        if self._leadership is not None:
            work.create_task(self._leadership.run())
            log.info("standing by until the kube-scheduler beside holds the lease %s", self._config.leader_lease)
            await self._leadership.won.wait()
            log.info("taking over: the kube-scheduler beside holds the lease as %s", self._leadership.holder)
        self._metrics.active.set(1)

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # At once, because the next replica may begin within seconds; then again what the watch still brought.
                await self._flush()
                await self._watch.stop()
                await self._flush()
        except TimeoutError:
            log.warning("not everything could be written; the next start rebuilds it from the cluster")

    async def _flush(self) -> None:
        self._profiles.save()
        await self._writes.drain()

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        """Serve health and metrics where the configuration says."""
        server = self._config.server
        alive = {"the task watch can run": lambda: not self._watch.is_broken}
        ready = {
            "the learned state was read": self._learned.is_set,
            "nodes were listed": self._nodes.synced.is_set,
            "pods were listed": lambda: all(pods.synced.is_set() for pods in self._pods),
            "tasks are watched": lambda: self._watch.is_ready,
            "some node carries the tier label": lambda: bool(self._fleet.nodes),
        }
        app = health.build_app(self._registry, alive=alive, ready=ready, standby=self._is_standby)
        return serve(app, server.health_host, server.health_port)

    def _serve_extender(self) -> AbstractAsyncContextManager[None]:
        """Serve the extender on the loopback interface: kube-scheduler runs beside."""
        app = build_app(self._extender, self._metrics, self._guard)
        return serve(app, "127.0.0.1", self._config.server.extender_port)

    def _is_standby(self) -> bool:
        return self._leadership is not None and not self._leadership.won.is_set()

    async def _keep_house(self) -> None:
        """Do beside the hot path what spares it work: bring new figures to the fleet, drop stale reservations."""
        seen: Snapshot | None = None
        while True:
            snapshot = self._telemetry.snapshot
            if snapshot is not seen:
                for name in self._fleet.nodes:
                    self._guard.run("node", name, partial(self._update_bandwidth, name), again=False)
                self._placer.note_bandwidth()
                seen = snapshot
            for name, work in (
                ("of circuits", self._controller.node_health.tend),
                ("of reservations", self._drop_stale),
                ("of models", self._placer.trim),
            ):
                self._guard.run("housekeeping", name, work, again=False)
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)

    def _drop_stale(self) -> None:
        for task_id in self._placer.expire():
            log.warning("the placement of task %s was not carried out in time and is forgotten", task_id)

    def on_node(self, old: Object | None, new: Object | None) -> None:
        """Take note of a node that was added, changed or deleted; called inside the guard."""
        node = read_node(new, self._labels) if new else None
        if node is None:
            gone = new or old
            if gone is not None:
                self._drop_node(gone["metadata"]["name"])
            return
        known = self._fleet.nodes.get(node.name)
        if known != node:
            row = self._learner.register(node.name, node.gpu_type)
            if known is not None and known.uid != node.uid:
                self._learner.cool(node.name)
                self._controller.node_health.forget(node.name)
            self._fleet.put(node, row, self._bandwidth(node.name, node.tier))
            self._placer.note_bandwidth()
            self._controller.dispatcher.renew()

    def _drop_node(self, name: str) -> None:
        """Forget a node of the fleet; most others only report that they are alive."""
        self._learner.cool(name)
        if name not in self._fleet.nodes:
            return
        self._fleet.remove(name)
        self._controller.node_health.forget(name)
        self._controller.clocks.forget(name)
        self._controller.dispatcher.renew()

    def _update_bandwidth(self, name: str) -> None:
        self._fleet.put_bandwidth(name, self._bandwidth(name))

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


def _follow_lease(config: Config, client: Client, outages: Outages) -> Leadership | None:
    if not config.leader_lease:
        return None
    return Leadership(
        client,
        find_namespace(),
        config.leader_lease,
        hostname=socket.gethostname(),
        now=time.monotonic,
        outages=outages,
    )
