"""The operator in shadow mode: next to any scheduler, it writes nothing but the profiles of nodes.

It watches nodes and pods, reads Prometheus, and learns. It has no tasks and no kube-scheduler, and one replica.
"""

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import IO

from prometheus_client import CollectorRegistry

from perllm import health
from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.device_api import wait_for_devices
from perllm.cluster.devices import read_slice
from perllm.cluster.informer import wait_for_first_lists
from perllm.config import Config
from perllm.controller.clocks import Clocks
from perllm.foundations import lay_foundations
from perllm.loop_lag import watch_loop
from perllm.nodes.devices import NodeDevices
from perllm.nodes.node_health import NodeHealth
from perllm.placement.counterfactual import Savings
from perllm.placement.savings import SavedUnit
from perllm.shadow.observer import ShadowObserver
from perllm.shadow.report import ShadowReport
from perllm.shadow.selection import read_shadowed_pod
from perllm.supervision import cancelled_at_exit, serve

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 10.0
PODS_PATIENCE_S = 60.0


class ShadowOperator:
    """All parts of an operator in shadow mode."""

    def __init__(
        self, config: Config, client: Client, registry: CollectorRegistry, journal: IO[bytes] | None = None
    ) -> None:
        base = self._base = lay_foundations(
            config, client, registry, now_s=time.monotonic, unix_now=time.time, journal=journal
        )
        self._stopping = asyncio.Event()
        self._profiles = base.build_profiles()
        node_health = NodeHealth(
            base.scheduler,
            base.parts.circuits,
            base.metrics,
            show=lambda *_: None,
            now_s=base.now_s,
            unix_now=base.unix_now,
        )
        clocks = Clocks(base.parts.fleet.nodes.__contains__, base.metrics.fleet.show_clock_skew)
        self._observer = self._build_observer(node_health, clocks)
        self._upkeep = base.build_upkeep(node_health, clocks.forget)
        self._nodes = base.build_informer("node", "/api/v1/nodes", self._upkeep.read, self._upkeep.on_node)
        devices = NodeDevices(self._upkeep.put_devices, lambda *_: None)
        read_own = partial(read_slice, selections=config.nodes.to_labels().devices)
        self._slices = base.build_informer("resource slice", names.SLICES_PATH, read_own, devices.on_slice)
        read = partial(read_shadowed_pod, settings=config.shadow, gpu_resources=config.nodes.resources)
        self._pods = [
            base.build_informer("pod", names.pods_path(namespace), read, self._observer.on_pod)
            for namespace in config.namespaces or (None,)
        ]

    def _build_observer(self, node_health: NodeHealth, clocks: Clocks) -> ShadowObserver:
        base, savings = self._base, Savings(is_shadow=True)
        for unit in SavedUnit:
            base.metrics.savings.show(unit, partial(savings.of, unit))
        return ShadowObserver(
            base.scheduler,
            base.parts.fleet,
            settlement=base.build_settlement(),
            savings=savings,
            node_health=node_health,
            clocks=clocks,
            report=ShadowReport(base.metrics),
            guard=base.guard,
            unix_now=base.unix_now,
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
            stack.callback(self._base.source.close)
            await stack.enter_async_context(self._serve_health())
            work = await stack.enter_async_context(cancelled_at_exit())
            work.create_task(self._start(work))
            await self._stopping.wait()
            log.info("stopping")
            await self._write_out()

    async def _start(self, work: asyncio.TaskGroup) -> None:
        base, begin = self._base, partial(self._base.begin, work)
        begin("watch of the event loop", partial(watch_loop, base.metrics.process.loop_lag.observe))
        outcomes = await self._profiles.load()
        log.info("learned state restored: %d outcomes", outcomes)
        begin("watch of nodes", self._nodes.run)
        await self._nodes.synced.wait()
        if base.config.nodes.devices:
            begin("watch of devices", self._follow_devices)
        begin("telemetry", base.telemetry.run)
        begin("writes", base.writes.run)
        begin("profiles", self._profiles.run)
        begin("upkeep of nodes", self._upkeep.run)
        for pods in self._pods:
            begin("watch of pods", pods.run)
        for path in await wait_for_first_lists(self._pods, PODS_PATIENCE_S):
            log.warning("started without %s, which cannot be read yet: pods there are not counted", path)
        base.metrics.process.active.set(1)
        log.info("shadow mode: nothing is placed, %d nodes", len(base.parts.fleet.nodes))

    async def _follow_devices(self) -> None:
        await wait_for_devices(self._base.client)
        await self._slices.run()

    async def _write_out(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                self._profiles.save()
                await self._base.writes.drain()
        except TimeoutError:
            log.warning("not everything that was learned could be written")

    def _serve_health(self) -> AbstractAsyncContextManager[None]:
        server = self._base.config.server
        ready = {
            "nodes were listed": self._nodes.synced.is_set,
            "pods were listed": lambda: all(pods.synced.is_set() for pods in self._pods),
            "some node carries the tier label": lambda: bool(self._base.parts.fleet.nodes),
        }
        app = health.build_app(self._base.registry, alive={}, ready=ready)
        return serve(app, server.health_host, server.health_port)
