"""The operator: its parts, started in order and run until it is stopped.

Start    wait to be active, if there are several replicas; then learned state, nodes, pods, tasks, in an order in which
         references resolve. kube-scheduler is answered once nodes and pods are known.
Stop     no new tasks; statuses and learned state in memory are written; then everything ends.
Lost     another replica is active: everything ends at once, and nothing more is written.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version

from perllm import health
from perllm.cluster.informer import wait_for_first_lists
from perllm.cluster.leadership import LeadershipError
from perllm.extender.server import build_app
from perllm.loop_lag import watch_loop
from perllm.nodes.agents import lose_former_runs
from perllm.supervision import cancelled_at_exit, serve
from perllm.wiring import Wiring

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
    """Runs the parts of an operator once."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._base = wiring.base
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._learned = asyncio.Event()

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
        base, tasks, cost_source = self._base, self._wiring.tasks, self._wiring.cost_source
        async with AsyncExitStack() as stack:
            stack.callback(base.source.close)
            if cost_source is not None:
                stack.callback(cost_source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            base.begin(work, "watch of the event loop", partial(watch_loop, base.metrics.process.loop_lag.observe))
            await self._become_active(work)
            await self._start(work)
            tasks.start()
            stack.push_async_callback(tasks.stop)
            # Last, so that it ends first: the watch may take seconds to end, and no call may be answered then.
            await stack.enter_async_context(self._serve_extender())
            log.info("serving %d nodes with policy %s", len(base.parts.fleet.nodes), base.parts.policy.name)
            self._starting = None
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    async def _become_active(self, work: asyncio.TaskGroup) -> None:
        """Return when this replica is active; the group fails when it no longer is."""
        leadership = self._wiring.leadership
        if leadership is not None:
            work.create_task(leadership.run())
            log.info("standby until the kube-scheduler in this pod holds the lease %s", self._base.config.leader_lease)
            await leadership.won.wait()
            log.info("active: the kube-scheduler in this pod holds the lease as %s", leadership.holder)
        self._base.metrics.process.active.set(1)

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
        profiles = self._wiring.profiles
        outcomes = await profiles.load()
        self._learned.set()
        log.info("learned state restored: %d outcomes", outcomes)
        for name in profiles.tripped:
            self._wiring.control.node_health.show(name)

    async def _watch_nodes(self, begin: Begin) -> None:
        watches = self._wiring.watches
        begin("watch of nodes", watches.nodes.run)
        await watches.nodes.synced.wait()
        if watches.devices is not None:
            begin("watch of devices and claims", watches.devices.run)
            await watches.devices.wait_until_known()

    def _begin_energy(self, begin: Begin) -> None:
        base, costs = self._base, self._wiring.costs
        begin("telemetry", base.telemetry.run)
        begin("energy accounts", self._wiring.accounts.run)
        if costs is not None:
            begin("costs of energy", costs.run)
        begin("foreign load", partial(base.foreign.follow, self._find_foreign, base.unix_now))

    async def _watch_pods(self, begin: Begin) -> None:
        watches, kueue = self._wiring.watches, self._wiring.kueue
        for pods in watches.all_pods:
            begin("watch of pods", pods.run)
        for path in await wait_for_first_lists(watches.all_pods, PODS_PATIENCE_S):
            log.warning("started without %s, which cannot be read yet: pods there are not counted", path)
        for obstacles in watches.obstacles:
            begin("watch of quotas and namespaces", obstacles.run)
        if kueue is not None:
            begin("watch of Kueue", kueue.run)
            await kueue.wait_until_known()

    def _begin_control(self, begin: Begin) -> None:
        wiring, control = self._wiring, self._wiring.control
        begin("writes", self._base.writes.run)
        begin("dispatcher", self._dispatch)
        begin("profiles", wiring.profiles.run)
        begin("watch of profiles", wiring.watches.profiles.run)
        begin("releases of pods", control.releases.run)
        begin("retries of rejected pods", wiring.retries.run)
        begin("search for stray pods", control.stray_pods.run)
        begin("retirement of tasks", control.retirement.run)
        begin("comparison of the ledger", control.drift.run)
        begin("upkeep of nodes", wiring.upkeep.run)

    def _watch_agents(self, begin: Begin) -> None:
        agents = self._wiring.watches.agents
        if agents is None:
            self._base.scheduler.note_servers_known()
            begin("requests of former agents", partial(lose_former_runs, self._wiring.control.controller.lose_runs))
            return
        begin("watch of model servers", agents.offers.run)
        begin("watch of agents", agents.leases.run)
        begin("upkeep of agents", agents.run)

    async def _dispatch(self) -> None:
        """Start tasks once all tasks and model servers are known, so that the most urgent task comes first."""
        tasks, agents = self._wiring.tasks, self._wiring.watches.agents
        with suppress(TimeoutError):
            async with asyncio.timeout(TASKS_PATIENCE_S):
                while not tasks.is_ready:  # noqa: ASYNC110 - it depends on another thread
                    await asyncio.sleep(TASKS_POLL_S)
                if agents is not None:
                    await agents.wait_until_synced()
        await self._wiring.control.dispatcher.run()

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # At once, because the next replica may start within seconds; then what the watch still delivered.
                await self._flush()
                await self._wiring.tasks.stop()
                await self._flush()
        except TimeoutError:
            log.warning("not everything could be written; the next start rebuilds it from the cluster")

    async def _flush(self) -> None:
        self._wiring.control.writer.hurry()
        self._wiring.profiles.save()
        await self._base.writes.drain()

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        """Serve health and metrics at the configured address."""
        base, watches, tasks = self._base, self._wiring.watches, self._wiring.tasks
        alive = {"the task watch can run": lambda: not tasks.is_broken}
        ready = {
            "the learned state was read": self._learned.is_set,
            "nodes were listed": watches.nodes.synced.is_set,
            "pods were listed": lambda: all(pods.synced.is_set() for pods in watches.all_pods),
            "tasks are watched": lambda: tasks.is_ready,
            "some node carries the tier label": lambda: bool(base.parts.fleet.nodes),
        }
        app = health.build_app(base.registry, alive=alive, ready=ready, standby=self._is_standby)
        return serve(app, base.config.server.health_host, base.config.server.health_port)

    def _serve_extender(self) -> AbstractAsyncContextManager[None]:
        """Serve the extender on the loopback interface: kube-scheduler runs in the same pod."""
        app = build_app(self._wiring.extender, self._base.metrics, self._base.guard)
        return serve(app, "127.0.0.1", self._base.config.server.extender_port)

    def _find_foreign(self) -> dict[str, float]:
        fleet, ledger = self._base.parts.fleet, self._base.parts.ledger
        return {name: ledger.find_foreign(fleet.row(name)) for name in fleet.nodes}

    def _is_standby(self) -> bool:
        leadership = self._wiring.leadership
        return leadership is not None and not leadership.won.is_set()
