"""The operator: all parts, wired together and run until it is stopped.

Start    wait to be active, if there are several replicas; then learned state, nodes, pods, tasks, in an order in which
         references resolve. kube-scheduler is answered once nodes and pods are known.
Stop     no new tasks; statuses and learned state in memory are written; then everything ends.
Lost     another replica is active: everything ends at once, and nothing more is written.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import IO, TypeVar

import requests
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import Credentials
from perllm.cluster.events import EventRecorder
from perllm.cluster.informer import Informer, OnChange, wait_for_first_lists
from perllm.cluster.leadership import Leadership, LeadershipError, find_namespace
from perllm.cluster.node import Node
from perllm.cluster.obstacles import Obstacle, read_namespace, read_quota
from perllm.cluster.outages import Outages
from perllm.cluster.pod import Pod, read_pod
from perllm.cluster.pod_ends import PodPatience
from perllm.cluster.starts import StartRecord
from perllm.cluster.writes import WriteQueue
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.assembly import ControllerContext, ControllerSettings, build_task_control
from perllm.controller.history import HistoryLimits
from perllm.controller.watch import TaskWatch
from perllm.costs.metrics import CostMetrics
from perllm.costs.outlook import TariffBook
from perllm.costs.service import EnergyCosts
from perllm.energy.accounts import AccountMetrics, EnergyAccounts
from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.settlement import Settlement
from perllm.extender.extender import Extender
from perllm.extender.server import build_app
from perllm.guard import Guard
from perllm.loop_lag import watch_loop
from perllm.metrics import OperatorMetrics
from perllm.nodes.agents import NodeAgents, Offer, SeenLease, read_lease, read_offer
from perllm.nodes.profile_parts import ProfileParts
from perllm.nodes.profile_store import ProfileStore
from perllm.nodes.serving_display import ServingDisplay
from perllm.nodes.upkeep import NodeUpkeep
from perllm.scheduling.assembly import build_admission, build_scheduler, read_settings
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.supervision import cancelled_at_exit, keep_running, serve
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.source import PrometheusSource

log = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_TIMEOUT_S = 10.0
TASKS_PATIENCE_S = 20.0
"""Tasks are started after this time even if those of some namespace cannot be listed yet."""

TASKS_POLL_S = 0.05
PODS_PATIENCE_S = 60.0
"""Without the pods of a namespace, nodes seem emptier than they are; the operator waits this long to list them all."""


class Operator:
    """All parts of a running operator."""

    def __init__(
        self,
        config: Config,
        client: Client,
        credentials: Credentials,
        registry: CollectorRegistry,
        journal: IO[bytes] | None = None,
        starts: Path | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._registry = registry
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._learned = asyncio.Event()
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
        self._cost_source = PrometheusSource(config.telemetry, requests.Session())
        self._foreign = ForeignLoad(config.telemetry.history_s)
        wake = asyncio.Event()
        scheduler, parts = build_scheduler(
            read_settings(config, seed=rng.getrandbits(32)),
            Inputs(HeldClock(time.monotonic, time.time), journal, wake.set),
            count_discarded=lambda reason: self._metrics.outcomes_refused.labels(reason).inc(),
            metrics_age_s=self._find_metrics_age_s,
        )
        self._scheduler = scheduler
        self._fleet, self._ledger, self._policy = parts.fleet, parts.ledger, parts.policy
        self._costs = EnergyCosts(
            TariffBook.build(config.costs),
            self._cost_source,
            lambda: parts.fleet.nodes,
            scheduler.put_costs,
            metrics=CostMetrics(registry),
            guard=self._guard,
            unix_now=time.time,
        )
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
        self._profile_parts = ProfileParts(
            client,
            self._writes,
            node_of=parts.fleet.nodes.get,
            create_profile=self._profiles.create,
            prefix=names.profile_prefix(config.instance),
        )
        self._display = ServingDisplay(partial(self._profile_parts.put, "serving"), now_s=time.monotonic)
        control = self._control = build_task_control(
            scheduler, parts, self._build_context(wake), _read_controller_settings(config)
        )
        self._upkeep = NodeUpkeep(
            scheduler,
            parts.fleet,
            config.nodes,
            health=control.node_health,
            snapshot=lambda: self._telemetry.snapshot,
            guard=self._guard,
            on_gone=control.clocks.forget,
        )
        self._leadership = _follow_lease(config, client, self._outages, starts)
        self._nodes, self._pods, self._obstacles = self._build_informers()
        self._profile_watch = self._inform(
            "profile",
            names.node_profiles_path(),
            lambda item: str(item["metadata"]["name"]),
            self._note_profile,
            metadata_only=True,
            labelSelector=names.select_instance(config.instance),
        )
        self._agents = NodeAgents(
            scheduler,
            control.controller.lose_runs,
            show=self._display.show,
            can_see=lambda: self._leases is None or self._leases.topic not in self._outages,
            now_s=time.monotonic,
            unix_now=time.time,
        )
        self._offers, self._leases = self._build_agent_informers()
        self._watch = TaskWatch(
            credentials,
            lambda item, deleted: control.controller.on_task(item, deleted=deleted),
            control.controller.on_list,
            self._metrics,
            self._outages,
            rng,
            namespaces=config.namespaces,
        )
        self._extender = Extender(
            scheduler,
            parts.ledger,
            client,
            control.controller.request_of,
            control.decisions.note_bound,
            control.decisions.forget,
        )

    def _build_context(self, wake: asyncio.Event) -> ControllerContext:
        config, client = self._config, self._client
        settlement = Settlement(
            self._telemetry.energy,
            IdlePower(self._scheduler.put_idle_power),
            self._foreign,
            patience_s=config.energy_patience_s,
            retry_s=max(config.telemetry.interval_s / 2, 0.1),
            window_s=config.telemetry.history_s,
            now=time.monotonic,
        )
        self._accounts = EnergyAccounts(
            self._telemetry.energy,
            settlement,
            lambda: self._fleet.nodes,
            AccountMetrics(self._registry),
            guard=self._guard,
            window_s=config.telemetry.history_s,
            unix_now=time.time,
        )
        events = EventRecorder(client, self._writes, instance=socket.gethostname(), unix_now=time.time)
        return ControllerContext(
            client=client,
            writes=self._writes,
            settlement=settlement,
            announcer=Announcer(events, self._metrics),
            metrics=self._metrics,
            guard=self._guard,
            now_s=time.monotonic,
            unix_now=time.time,
            show_circuit=partial(self._profile_parts.put, "circuit"),
            wake=wake,
            has_tasks=lambda: self._watch.is_ready,
            pod_paths=_find_pod_paths(config),
            charge=self._costs.charge,
        )

    def _build_informers(self) -> tuple[Informer[Node], list[Informer[Pod]], list[Informer[Obstacle]]]:
        """Return the informers of nodes, of pods, and of the obstacles to pods: quotas and namespaces."""
        controller, namespaces = self._control.controller, self._config.namespaces
        nodes = self._inform("node", "/api/v1/nodes", self._upkeep.read, self._upkeep.on_node)
        pods = [
            self._inform("pod", path, read_pod, controller.on_pod, labelSelector=names.TASK_LABEL)
            for path in _find_pod_paths(self._config)
        ]
        obstacles = [
            self._inform("quota", path, read_quota, controller.on_quota)
            for path in map(names.quotas_path, namespaces or (None,))
        ]
        if not namespaces:
            path = "/api/v1/namespaces"
            obstacles.append(self._inform("namespace", path, read_namespace, controller.on_namespace))
        return nodes, pods, obstacles

    def _build_agent_informers(self) -> tuple[Informer[Offer], Informer[SeenLease] | None]:
        """Return the informers of model servers and, if there may be agents, of their Leases."""
        offers = self._inform("model server", names.node_servers_path(), read_offer, self._agents.on_offer)
        namespace = self._config.agents.lease_namespace
        if not namespace:
            return offers, None
        return offers, self._inform("lease", names.leases_path(namespace), read_lease, self._agents.on_lease)

    def _inform(
        self,
        kind: str,
        path: str,
        read: Callable[[Object], T | None],
        on_change: OnChange[T],
        *,
        metadata_only: bool = False,
        **query: str,
    ) -> Informer[T]:
        return Informer(
            self._client,
            path,
            read,
            on_change,
            kind=kind,
            query=query,
            metadata_only=metadata_only,
            guard=self._guard,
            outages=self._outages,
            rng=self._rng,
        )

    def _note_profile(self, old: str | None, new: str | None) -> None:
        if old is not None and new is None:
            self._profiles.note_missing(old)
            self._display.forget(old.removeprefix(names.profile_prefix(self._config.instance)))

    def stop(self) -> None:
        """Stop the operator; a start that still waits for the API server is abandoned."""
        self._stopping.set()
        if self._starting is not None:
            self._starting.cancel()

    async def run(self) -> None:
        """Run until `stop` is called, then write what is left to write.

        Raises:
            LeadershipError: another replica may be active from now on.
            ApiError: the API server denies a request that the operator cannot do without.
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
        log.info("starting PerLLM %s", version("perllm"))
        async with AsyncExitStack() as stack:
            stack.callback(self._source.close)
            stack.callback(self._cost_source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            self._begin(work, "watch of the event loop", partial(watch_loop, self._metrics.loop_lag.observe))
            await self._take_turn(work)
            outcomes = await self._profiles.load()
            self._learned.set()
            log.info("learned state restored: %d outcomes", outcomes)
            for name in self._profiles.tripped:
                self._control.node_health.show(name)
            self._begin(work, "watch of nodes", self._nodes.run)
            await self._nodes.synced.wait()
            self._begin(work, "telemetry", self._telemetry.run)
            self._begin(work, "energy accounts", self._accounts.run)
            if self._config.costs.has_tariffs:
                self._begin(work, "costs of energy", self._costs.run)
            self._begin(work, "foreign load", partial(self._foreign.follow, self._find_foreign, time.time))
            for pods in self._pods:
                self._begin(work, "watch of pods", pods.run)
            for path in await wait_for_first_lists(self._pods, PODS_PATIENCE_S):
                log.warning("started without %s, which cannot be read yet: pods there are not counted", path)
            for obstacles in self._obstacles:
                self._begin(work, "watch of quotas and namespaces", obstacles.run)
            self._begin(work, "writes", self._writes.run)
            self._begin(work, "dispatcher", self._dispatch)
            self._begin(work, "profiles", self._profiles.run)
            self._begin(work, "watch of profiles", self._profile_watch.run)
            self._begin(work, "releases of pods", self._control.releases.run)
            self._begin(work, "search for stray pods", self._control.stray_pods.run)
            self._begin(work, "retirement of tasks", self._control.retirement.run)
            self._begin(work, "comparison of the ledger", self._control.drift.run)
            self._begin(work, "upkeep of nodes", self._upkeep.run)
            if self._leases is not None:
                self._begin(work, "watch of model servers", self._offers.run)
                self._begin(work, "watch of agents", self._leases.run)
                self._begin(work, "upkeep of agents", self._agents.run)
            else:
                self._scheduler.note_servers_known()
            self._watch.start()
            stack.push_async_callback(self._watch.stop)
            # Last, so that it ends first: the watch may take seconds to end, and no call may be answered then.
            await stack.enter_async_context(self._serve_extender())
            log.info("serving %d nodes with policy %s", len(self._fleet.nodes), self._policy.name)
            self._starting = None
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    async def _dispatch(self) -> None:
        """Start tasks once all of them are known, so that the most urgent ones come first, and so are model servers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TASKS_PATIENCE_S):
                while not self._watch.is_ready:  # noqa: ASYNC110 - it depends on another thread
                    await asyncio.sleep(TASKS_POLL_S)
                if self._leases is not None:
                    await self._offers.synced.wait()
                    await self._leases.synced.wait()
        await self._control.dispatcher.run()

    def _begin(self, work: asyncio.TaskGroup, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part until the group ends; if it fails, the error is logged and the part is restarted."""
        work.create_task(keep_running(name, part, self._guard, self._rng))

    async def _take_turn(self, work: asyncio.TaskGroup) -> None:
        """Return when this replica is active; the group fails when it no longer is."""
        if self._leadership is not None:
            work.create_task(self._leadership.run())
            log.info("standby until the kube-scheduler in this pod holds the lease %s", self._config.leader_lease)
            await self._leadership.won.wait()
            log.info("active: the kube-scheduler in this pod holds the lease as %s", self._leadership.holder)
        self._metrics.active.set(1)

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # At once, because the next replica may start within seconds; then what the watch still delivered.
                await self._flush()
                await self._watch.stop()
                await self._flush()
        except TimeoutError:
            log.warning("not everything could be written; the next start rebuilds it from the cluster")

    async def _flush(self) -> None:
        self._control.writer.hurry()
        self._profiles.save()
        await self._writes.drain()

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        """Serve health and metrics at the configured address."""
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
        """Serve the extender on the loopback interface: kube-scheduler runs in the same pod."""
        app = build_app(self._extender, self._metrics, self._guard)
        return serve(app, "127.0.0.1", self._config.server.extender_port)

    def _find_foreign(self) -> dict[str, float]:
        return {name: self._ledger.find_foreign(self._fleet.row(name)) for name in self._fleet.nodes}

    def _is_standby(self) -> bool:
        return self._leadership is not None and not self._leadership.won.is_set()

    def _find_metrics_age_s(self, name: str) -> float | None:
        """Return the age of a node's figures; None unless its power is known and fresh."""
        figures = self._telemetry.snapshot.of(name)
        return None if figures.power_w.fresh_value is None else figures.age_s(time.time())


def _find_pod_paths(config: Config) -> list[str]:
    return [names.pods_path(namespace) for namespace in config.namespaces or (None,)]


def _read_controller_settings(config: Config) -> ControllerSettings:
    return ControllerSettings(
        scheduler_name=config.scheduler_name,
        gpu_resources=config.nodes.resources,
        patience=PodPatience(start_s=config.start_timeout_s),
        admission=build_admission(config.admission),
        history=HistoryLimits(config.tasks.default_ttl_s, config.tasks.max_history),
        runner=config.runner,
    )


def _follow_lease(config: Config, client: Client, outages: Outages, starts: Path | None) -> Leadership | None:
    if not config.leader_lease:
        return None
    return Leadership(
        client,
        find_namespace(),
        config.leader_lease,
        hostname=socket.gethostname(),
        now=time.monotonic,
        outages=outages,
        starts=StartRecord(starts, time.time) if starts is not None else None,
    )
