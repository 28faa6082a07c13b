"""All simulated nodes of a scenario on one API server."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from perllm.cluster.client import Client
from perllm.cluster.informer import Informer, keep_all
from perllm.loop_lag import watch_loop
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.nodes.clock import Clock
from perllm_lab.nodes.exporter import Exporter
from perllm_lab.nodes.ground_truth import GroundTruth, fleet_totals
from perllm_lab.nodes.host import Host
from perllm_lab.nodes.kubelet import Kubelet, Surroundings
from perllm_lab.nodes.machine import Machine
from perllm_lab.nodes.model_server import ServerSurroundings, SimulatedServer
from perllm_lab.nodes.pacer import Pacer
from perllm_lab.nodes.registration import RENEW_S, Registrar
from perllm_lab.nodes.writer import Writer

log = logging.getLogger(__name__)

Object = dict[str, Any]

BOUND_AND_ALIVE = {
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
    # Agents run as a process of the lab.
    "labelSelector": "app.kubernetes.io/component!=agent",
}
REGISTRATIONS_AT_ONCE = 8
MAX_BACKLOG = 2000
LATE_KEPT = 20_000
DRAIN_S = 3.0


class SimulatedFleet:
    """Registers the nodes of a scenario, runs the pods bound to them, serves requests and exports the nodes' meters.

    Create it in the event loop that runs it; simulated time starts then.

    An asynchronous context manager: inside it all nodes are registered and pods are followed. On exit everything stops
    but the Node objects remain, as when a machine goes down. Pods that an earlier fleet started fail with reason
    NodeRestarted; they never run twice.

    Args:
        scenario: the nodes.
        client: open; the fleet uses about 20 of its connections.
        speed: simulated seconds per wall second.
        seed: of the variation of the uplinks.
        truth_file: the ground truth is appended to it as JSON lines; None discards it.
        port: Port of the exporter and of the model servers; 0 takes a free one, see `port`.
    """

    def __init__(
        self,
        scenario: Scenario,
        client: Client,
        *,
        speed: float = 1.0,
        seed: int = 0,
        truth_file: Path | None = None,
        port: int = 0,
    ) -> None:
        if not speed > 0.0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.speed = speed
        self._nodes = scenario.nodes()
        self._registrar = Registrar(client)
        self._writer = Writer(client)
        self._truth = GroundTruth(truth_file)
        self._exporter = Exporter(self, port=port)
        self._informer = Informer(client, "/api/v1/pods", keep_all, self._on_pod, query=BOUND_AND_ALIVE)
        self._clock = _start_clock(speed)
        self._hosts = self._build_hosts(seed)
        self._late_s: deque[float] = deque(maxlen=LATE_KEPT)
        self._tasks: list[asyncio.Task[None]] = []
        self._exit = AsyncExitStack()

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The nodes by name."""
        return self._hosts

    @property
    def late_s(self) -> Sequence[float]:
        """By how many real seconds the nodes did their work too late, measured at regular intervals."""
        return self._late_s

    @property
    def port(self) -> int:
        """The port of the exporter."""
        return self._exporter.port

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._truth)
            await self._register_all()
            await stack.enter_async_context(self._exporter)
            stack.push_async_callback(self._stop)
            self._spawn("informer", self._informer.run())
            self._spawn("writer", self._writer.run())
            self._spawn("lateness", watch_loop(self._late_s.append))
            for index, spec in enumerate(self._nodes):
                beat = self._registrar.keep_alive(
                    spec, self._hosts[spec.name].machine, RENEW_S * index / len(self._nodes)
                )
                self._spawn(f"lease-{spec.name}", beat)
            await self._informer.synced.wait()
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def wait(self) -> None:
        """Wait forever; raise the error that ended a part of the fleet."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task

    def totals(self) -> dict[str, object]:
        """Return energy, bytes and runs of all nodes as plain data."""
        nodes = {name: host.machine.truth() for name, host in self._hosts.items()}
        return fleet_totals(nodes, simulated_s=self._clock.now_s(), speed=self.speed)

    def troubles(self) -> list[str]:
        """Return why the fleet is not healthy; empty when it is."""
        found = [f"{task.get_name()} has ended" for task in self._tasks if task.done()]
        if not self._informer.synced.is_set():
            found.append("the pods have not been listed yet")
        if self._writer.backlog > MAX_BACKLOG:
            found.append(f"{self._writer.backlog} pod states wait to be written")
        return found

    def cut_power(self, name: str) -> None:
        """Cut the power of a node: its runs are lost, its lease expires, its meters cannot be read."""
        self._hosts[name].cut_power()

    async def boot(self, name: str) -> None:
        """Boot a node: pods that it had started before fail, those that it had not started start now."""
        host = self._hosts[name]
        await self._registrar.register(host.machine.spec)
        host.boot()
        for item in list(self._informer.objects.values()):
            if item["spec"].get("nodeName") == name:
                host.kubelet.see(item)

    def _build_hosts(self, seed: int) -> dict[str, Host]:
        of_pods = Surroundings(self._writer.submit, self._truth.add_run)
        of_requests = ServerSurroundings(Pacer(), self._truth.add_run)
        rngs = np.random.default_rng(seed).spawn(len(self._nodes))
        machines = [Machine(spec, rng, self._clock) for spec, rng in zip(self._nodes, rngs, strict=True)]
        return {
            each.spec.name: Host(each, Kubelet(each, of_pods), SimulatedServer(each, of_requests)) for each in machines
        }

    async def _register_all(self) -> None:
        gate = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)

        async def register(index: int) -> None:
            async with gate:
                await self._registrar.register(self._nodes[index])

        await asyncio.gather(*(register(index) for index in range(len(self._nodes))))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    async def _stop(self) -> None:
        # Give finished pods a moment to be reported, unless the API server has stopped already.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._writer.drain(), DRAIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for host in self._hosts.values():
            host.cut_power()
        self._truth.add_fleet(self.totals())

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        if old and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._on_gone(old)
        if new is None:
            return
        host = self._hosts.get(new["spec"].get("nodeName", ""))
        if host:
            host.kubelet.see(new)

    def _on_gone(self, old: Object) -> None:
        host = self._hosts.get(old["spec"].get("nodeName", ""))
        if host:
            host.kubelet.forget(old["metadata"]["uid"])


def _start_clock(speed: float) -> Clock:
    loop = asyncio.get_running_loop()
    return Clock(loop.time, loop.time(), time.time(), speed)
