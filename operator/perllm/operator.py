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
from typing import IO

import requests
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.annotated.assembly import build_annotated_pods
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import Credentials
from perllm.cluster.events import EventRecorder
from perllm.cluster.informer import wait_for_first_lists
from perllm.cluster.leadership import Leadership, LeadershipError, find_namespace
from perllm.cluster.starts import StartRecord
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.assembly import ControllerContext, build_task_control, read_controller_settings
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.suspensions import Suspensions
from perllm.controller.watch import TaskWatch
from perllm.costs.metrics import CostMetrics
from perllm.costs.outlook import TariffBook
from perllm.costs.service import EnergyCosts, charge_nothing
from perllm.energy.accounts import AccountMetrics, EnergyAccounts
from perllm.energy.bill import BillMetrics
from perllm.energy.settlement import Settlement
from perllm.extender.extender import Extender
from perllm.extender.protocol import Unplaceable
from perllm.extender.retries import Retries
from perllm.extender.server import build_app
from perllm.foundations import Foundations, lay_foundations
from perllm.kueue.watch import KueueWatch
from perllm.loop_lag import watch_loop
from perllm.nodes.profile_parts import ProfileParts
from perllm.placement.request import PlacementRequest
from perllm.supervision import cancelled_at_exit, serve
from perllm.telemetry.source import PrometheusSource
from perllm.watches import Watches, find_pod_paths

log = logging.getLogger(__name__)

Begin = Callable[[str, Callable[[], Awaitable[None]]], None]
"""Begins a part of the operator, by its name."""

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
        wake = asyncio.Event()
        base = self._base = lay_foundations(
            config, client, registry, now_s=time.monotonic, unix_now=time.time, journal=journal, wake=wake.set
        )
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._learned = asyncio.Event()
        self._profiles = base.build_profiles()
        self._profile_parts = ProfileParts(
            client,
            base.writes,
            node_of=base.parts.fleet.nodes.get,
            create_profile=self._profiles.create,
            prefix=names.profile_prefix(config.instance),
        )
        self._cost_source = PrometheusSource(config.telemetry, requests.Session()) if config.costs.has_tariffs else None
        self._costs = None if self._cost_source is None else self._build_costs(self._cost_source)
        settlement = base.build_settlement()
        bill = BillMetrics(registry)
        self._accounts = self._build_accounts(settlement, bill)
        events = EventRecorder(client, base.writes, instance=socket.gethostname(), unix_now=base.unix_now)
        self._kueue = self._build_kueue_watch()
        announcer = Announcer(events, base.metrics, EndMetrics(registry), bill)
        context = self._build_context(settlement, announcer, wake)
        control = self._control = build_task_control(
            base.scheduler, base.parts, context, read_controller_settings(config)
        )
        self._retries = self._build_retries()
        self._annotated = build_annotated_pods(
            base.scheduler, base.parts, context, control, events=events, bill=bill, retries=self._retries, config=config
        )
        self._upkeep = base.build_upkeep(control.node_health, control.clocks.forget)
        self._leadership = _follow_lease(base, starts)
        self._watches = Watches(
            base, control.controller, self._annotated, self._upkeep, self._profiles, self._profile_parts
        )
        self._tasks = self._build_task_watch(credentials)
        self._extender = self._build_extender()

    def _build_costs(self, source: PrometheusSource) -> EnergyCosts:
        base = self._base
        return EnergyCosts(
            TariffBook.build(base.config.costs),
            source,
            lambda: base.parts.fleet.nodes,
            base.scheduler.put_costs,
            metrics=CostMetrics(base.registry),
            guard=base.guard,
            unix_now=base.unix_now,
        )

    def _build_accounts(self, settlement: Settlement, bill: BillMetrics) -> EnergyAccounts:
        base = self._base
        return EnergyAccounts(
            base.telemetry.energy,
            settlement,
            lambda: base.parts.fleet.nodes,
            AccountMetrics(base.registry),
            bill,
            guard=base.guard,
            window_s=base.config.telemetry.history_s,
            unix_now=base.unix_now,
        )

    def _build_context(self, settlement: Settlement, announcer: Announcer, wake: asyncio.Event) -> ControllerContext:
        base = self._base
        return ControllerContext(
            client=base.client,
            writes=base.writes,
            settlement=settlement,
            announcer=announcer,
            metrics=base.metrics,
            guard=base.guard,
            now_s=base.now_s,
            unix_now=base.unix_now,
            show_circuit=partial(self._profile_parts.put, "circuit"),
            wake=wake,
            has_tasks=lambda: self._tasks.is_ready,
            pod_paths=find_pod_paths(base.config),
            is_annotated=lambda uid: self._annotated.is_in_flight(uid),
            charge=charge_nothing if self._costs is None else self._costs.charge,
            suspensions=Suspensions(
                None if self._kueue is None else self._kueue.workloads, base.config.kueue.served_resource
            ),
        )

    def _build_retries(self) -> Retries:
        base = self._base
        return Retries(
            base.client,
            base.writes,
            has_room=lambda request: base.scheduler.consider(request).node is not None,
            now_s=base.now_s,
            unix_now=base.unix_now,
        )

    def _build_task_watch(self, credentials: Credentials) -> TaskWatch:
        base, controller = self._base, self._control.controller
        return TaskWatch(
            credentials,
            lambda item, deleted: controller.on_task(item, deleted=deleted),
            controller.on_list,
            base.metrics,
            base.outages,
            base.rng,
            namespaces=base.config.namespaces,
        )

    def _build_extender(self) -> Extender:
        base, decisions = self._base, self._control.decisions
        return Extender(
            base.scheduler,
            base.parts.ledger,
            base.client,
            self._find_request,
            self._retries,
            decisions.note_bound,
            decisions.forget,
        )

    def _build_kueue_watch(self) -> KueueWatch | None:
        """Return the watch of Kueue; None if its queues are ignored."""
        base = self._base
        if not base.config.kueue.enabled:
            return None
        return KueueWatch(
            base.client,
            base.writes,
            base.build_informer,
            namespaces=base.config.namespaces,
            on_change=lambda key, uid: self._control.controller.on_admission(key, uid),
            unix_now=base.unix_now,
        )

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
        base = self._base
        async with AsyncExitStack() as stack:
            stack.callback(base.source.close)
            if self._cost_source is not None:
                stack.callback(self._cost_source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            base.begin(work, "watch of the event loop", partial(watch_loop, base.metrics.process.loop_lag.observe))
            await self._take_turn(work)
            await self._start(work)
            self._tasks.start()
            stack.push_async_callback(self._tasks.stop)
            # Last, so that it ends first: the watch may take seconds to end, and no call may be answered then.
            await stack.enter_async_context(self._serve_extender())
            log.info("serving %d nodes with policy %s", len(base.parts.fleet.nodes), base.parts.policy.name)
            self._starting = None
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    async def _start(self, work: asyncio.TaskGroup) -> None:
        """Begin everything but the watch of tasks, each part when what it refers to is known."""
        begin = partial(self._base.begin, work)
        await self._restore()
        await self._watch_nodes(begin)
        self._begin_energy(begin)
        await self._watch_pods(begin)
        self._begin_control(begin)
        self._watch_agents(begin)

    async def _restore(self) -> None:
        outcomes = await self._profiles.load()
        self._learned.set()
        log.info("learned state restored: %d outcomes", outcomes)
        for name in self._profiles.tripped:
            self._control.node_health.show(name)

    async def _watch_nodes(self, begin: Begin) -> None:
        begin("watch of nodes", self._watches.nodes.run)
        await self._watches.nodes.synced.wait()
        if self._watches.devices is not None:
            begin("watch of devices and claims", self._watches.devices.run)
            await self._watches.devices.wait_until_known()

    def _begin_energy(self, begin: Begin) -> None:
        base = self._base
        begin("telemetry", base.telemetry.run)
        begin("energy accounts", self._accounts.run)
        if self._costs is not None:
            begin("costs of energy", self._costs.run)
        begin("foreign load", partial(base.foreign.follow, self._find_foreign, base.unix_now))

    async def _watch_pods(self, begin: Begin) -> None:
        for pods in self._watches.all_pods:
            begin("watch of pods", pods.run)
        for path in await wait_for_first_lists(self._watches.all_pods, PODS_PATIENCE_S):
            log.warning("started without %s, which cannot be read yet: pods there are not counted", path)
        for obstacles in self._watches.obstacles:
            begin("watch of quotas and namespaces", obstacles.run)
        if self._kueue is not None:
            begin("watch of Kueue", self._kueue.run)
            await self._kueue.wait_until_known()

    def _begin_control(self, begin: Begin) -> None:
        control = self._control
        begin("writes", self._base.writes.run)
        begin("dispatcher", self._dispatch)
        begin("profiles", self._profiles.run)
        begin("watch of profiles", self._watches.profiles.run)
        begin("releases of pods", control.releases.run)
        begin("retries of rejected pods", self._retries.run)
        begin("search for stray pods", control.stray_pods.run)
        begin("retirement of tasks", control.retirement.run)
        begin("comparison of the ledger", control.drift.run)
        begin("upkeep of nodes", self._upkeep.run)

    def _watch_agents(self, begin: Begin) -> None:
        agents = self._watches.agents
        if agents is None:
            self._base.scheduler.note_servers_known()
            return
        begin("watch of model servers", agents.offers.run)
        begin("watch of agents", agents.leases.run)
        begin("upkeep of agents", agents.run)

    async def _dispatch(self) -> None:
        """Start tasks once all of them are known, so that the most urgent ones come first, and so are model servers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TASKS_PATIENCE_S):
                while not self._tasks.is_ready:  # noqa: ASYNC110 - it depends on another thread
                    await asyncio.sleep(TASKS_POLL_S)
                if self._watches.agents is not None:
                    await self._watches.agents.wait_until_synced()
        await self._control.dispatcher.run()

    async def _take_turn(self, work: asyncio.TaskGroup) -> None:
        """Return when this replica is active; the group fails when it no longer is."""
        if self._leadership is not None:
            work.create_task(self._leadership.run())
            log.info("standby until the kube-scheduler in this pod holds the lease %s", self._base.config.leader_lease)
            await self._leadership.won.wait()
            log.info("active: the kube-scheduler in this pod holds the lease as %s", self._leadership.holder)
        self._base.metrics.process.active.set(1)

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # At once, because the next replica may start within seconds; then what the watch still delivered.
                await self._flush()
                await self._tasks.stop()
                await self._flush()
        except TimeoutError:
            log.warning("not everything could be written; the next start rebuilds it from the cluster")

    async def _flush(self) -> None:
        self._control.writer.hurry()
        self._profiles.save()
        await self._base.writes.drain()

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        """Serve health and metrics at the configured address."""
        base, watches = self._base, self._watches
        alive = {"the task watch can run": lambda: not self._tasks.is_broken}
        ready = {
            "the learned state was read": self._learned.is_set,
            "nodes were listed": watches.nodes.synced.is_set,
            "pods were listed": lambda: all(pods.synced.is_set() for pods in watches.all_pods),
            "tasks are watched": lambda: self._tasks.is_ready,
            "some node carries the tier label": lambda: bool(base.parts.fleet.nodes),
        }
        app = health.build_app(base.registry, alive=alive, ready=ready, standby=self._is_standby)
        return serve(app, base.config.server.health_host, base.config.server.health_port)

    def _serve_extender(self) -> AbstractAsyncContextManager[None]:
        """Serve the extender on the loopback interface: kube-scheduler runs in the same pod."""
        app = build_app(self._extender, self._base.metrics, self._base.guard)
        return serve(app, "127.0.0.1", self._base.config.server.extender_port)

    def _find_request(self, pod: Object) -> PlacementRequest | Unplaceable | None:
        """Return what a pod asks of placement: a task's pod, or an annotated one."""
        request = self._control.controller.request_of(pod)
        return self._annotated.request_of(pod) if request is None and self._watches.annotated else request

    def _find_foreign(self) -> dict[str, float]:
        fleet, ledger = self._base.parts.fleet, self._base.parts.ledger
        return {name: ledger.find_foreign(fleet.row(name)) for name in fleet.nodes}

    def _is_standby(self) -> bool:
        return self._leadership is not None and not self._leadership.won.is_set()


def _follow_lease(base: Foundations, starts: Path | None) -> Leadership | None:
    if not base.config.leader_lease:
        return None
    return Leadership(
        base.client,
        find_namespace(),
        base.config.leader_lease,
        hostname=socket.gethostname(),
        now=base.now_s,
        outages=base.outages,
        starts=StartRecord(starts, base.unix_now) if starts is not None else None,
    )
