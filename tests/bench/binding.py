"""Pods bound per second: PerLLM beside the plain kube-scheduler, on the same control plane and nodes.

Nodes are bare Node objects and nothing runs, so only binding is measured, from the first binding to the last. All work
is waiting before the scheduler of a turn is started, so that the burst itself is no part of the figure.

plain       the cluster's kube-scheduler; the pods exist
extender    a private kube-scheduler with PerLLM's extender alone; the pods exist
tasks       everything: the operator makes the pods meanwhile, at most 32 ahead of kube-scheduler, and writes statuses
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
from cluster import AT_A_TIME, CpuUse, clear, create_all, describe_cpu, read_metric, wait_until, watch_bindings
from fleets import PODS, TASKS, build_pods, build_scenario, build_tasks
from latency import answers
from tables import Row

from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm.controller.dispatcher import MAX_UNBOUND_PODS
from perllm.extender.scheduler import scheduler_configuration
from perllm_lab.kubernetes.components import SCHEDULER
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.process import LOOPBACK, Process, find_free_ports
from perllm_lab.lab import SCHEDULER_USER, build_operator, install
from perllm_lab.nodes.registration import Registrar

Say = Callable[[str], None]

PLAIN, EXTENDER, TASK_PATH = "plain", "extender", "tasks"
NEVER = "--node-monitor-grace-period=1h"
SCHEDULERS = {PLAIN: SCHEDULER, EXTENDER: "bench-scheduler", TASK_PATH: "perllm-scheduler"}
EXPECTED = ">= 0.7x"


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is measured: pods in one burst, and turns of each contender."""

    pods: int
    rounds: int


async def measure_binding(
    binaries: Mapping[str, Path], sizes: Sequence[int], pace: Pace, folder: Path, say: Say
) -> list[Row]:
    """Return the ratios for every number of nodes."""
    rows: list[Row] = []
    async with Arena(binaries, folder) as arena:
        for size in sizes:
            await arena.grow(size)
            rates, notes = await _compare(arena, size, pace, say)
            rows += _rows(size, rates, notes)
    return rows


class Arena:
    """A control plane, bare nodes, the operator, and one kube-scheduler for each contender."""

    def __init__(self, binaries: Mapping[str, Path], folder: Path) -> None:
        self.folder = folder
        self.plane = ControlPlane(binaries, folder / "kubernetes", flags={"kube-controller-manager": [NEVER]})
        self.extender_port, self.operator_port, self.health_port = find_free_ports(3)
        self.client: Client
        self.operator: Process
        self._stack = AsyncExitStack()
        self._nodes: set[str] = set()
        self._numbers = itertools.count()

    async def __aenter__(self) -> "Arena":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        await self._stack.enter_async_context(self.plane)
        credentials = load_credentials(self.plane.admin_kubeconfig)
        self.client = await self._stack.enter_async_context(Client(credentials, max_connections=64))
        await install(self.client)
        self.operator = self._build_operator()
        self._stack.push_async_callback(self.operator.stop)
        for kind, port in ((EXTENDER, self.extender_port), (TASK_PATH, self.operator_port)):
            name = "perllm" if kind == TASK_PATH else EXTENDER
            configuration = scheduler_configuration(f"http://{LOOPBACK}:{port}", name)
            await self.plane.start_scheduler(SCHEDULERS[kind], configuration, user=SCHEDULER_USER)
            await self.plane.stop_component(SCHEDULERS[kind])

    @property
    def health_url(self) -> str:
        """Where the operator tells its metrics."""
        return f"http://{LOOPBACK}:{self.health_port}"

    async def grow(self, size: int) -> None:
        """Add nodes until there are `size`, and start the operator anew: with nothing learned."""
        wanted = {node.name: node for node in build_scenario(size).nodes()}
        registrar = Registrar(self.client)
        gate = asyncio.Semaphore(AT_A_TIME)

        async def register(name: str) -> None:
            async with gate:
                await registrar.register(wanted[name])

        await asyncio.gather(*(register(name) for name in wanted.keys() - self._nodes))
        self._nodes |= wanted.keys()
        await self.operator.stop()
        await self.operator.start()
        await self.operator.wait_until(self._is_ready, timeout_s=60)

    def pids(self) -> dict[str, int]:
        """Return the processes that may use the processors."""
        processes = {**self.plane.processes, "operator": self.operator}
        return {name: process.pid for name, process in processes.items() if process.pid is not None}

    def prefix(self) -> str:
        """Return a new prefix for names."""
        return f"burst-{next(self._numbers)}"

    def build_extender(self, size: int) -> Process:
        """Return the extender alone."""
        arguments = ("--nodes", size, "--port", self.extender_port, "--kubeconfig", self.plane.admin_kubeconfig)
        file = Path(__file__).with_name("lone_extender.py")
        argv: list[str | Path] = [sys.executable, file, *map(str, arguments)]
        return Process("lone extender", argv, log_file=self.folder / "extender.log")

    def _build_operator(self) -> Process:
        ports = {"extender_port": self.operator_port, "health_host": LOOPBACK, "health_port": self.health_port}
        nobody = {"url": f"http://{LOOPBACK}:1"}
        config = {"server": ports, "telemetry": nobody, "log": {"format": "json"}}
        return build_operator(self.plane, self.folder, config)

    async def _is_ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.health_url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


async def _compare(arena: Arena, size: int, pace: Pace, say: Say) -> tuple[dict[str, list[float]], dict[str, str]]:
    turns = {PLAIN: _turn_plain, EXTENDER: _turn_extender, TASK_PATH: _turn_tasks}
    rates: dict[str, list[float]] = {kind: [] for kind in turns}
    notes: dict[str, str] = {}
    for number, (kind, turn) in itertools.product(range(pace.rounds), turns.items()):
        rate, notes[kind] = await turn(arena, size, pace.pods)
        rates[kind].append(rate)
        say(f"binding: {size} nodes, round {number + 1}, {kind}: {rate:.0f} pods/s; {notes[kind]}")
        await clear(arena.client)
    return rates, notes


async def _turn_plain(arena: Arena, size: int, pods: int) -> tuple[float, str]:
    await arena.plane.stop_component(SCHEDULER)
    await create_all(arena.client, PODS, build_pods(arena.prefix(), pods, "default-scheduler"))
    return await _time_scheduler(arena, PLAIN, pods, {})


async def _turn_extender(arena: Arena, size: int, pods: int) -> tuple[float, str]:
    extender = arena.build_extender(size)
    await extender.start()
    try:
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{arena.extender_port}") as session:
            await extender.wait_until(lambda: answers(session), timeout_s=30)
        await create_all(arena.client, PODS, build_pods(arena.prefix(), pods, EXTENDER))
        return await _time_scheduler(arena, EXTENDER, pods, {"extender": extender.pid or 0})
    finally:
        await arena.plane.stop_component(SCHEDULERS[EXTENDER])
        await extender.stop(grace_s=1.0)


async def _turn_tasks(arena: Arena, size: int, pods: int) -> tuple[float, str]:
    await create_all(arena.client, TASKS, build_tasks(arena.prefix(), pods))

    async def all_seen() -> bool:
        return await read_metric(arena.health_url, "perllm_tasks_waiting") >= pods - MAX_UNBOUND_PODS

    await wait_until(all_seen, "the operator knows all tasks")
    try:
        return await _time_scheduler(arena, TASK_PATH, pods, {})
    finally:
        await arena.plane.stop_component(SCHEDULERS[TASK_PATH])


async def _time_scheduler(arena: Arena, kind: str, pods: int, more: dict[str, int]) -> tuple[float, str]:
    """Start the scheduler of a turn, wait until all is bound, and return pods per second and who used the CPU."""
    with watch_bindings(arena.client) as bindings:

        async def all_bound() -> bool:
            return len(bindings.times_s) >= pods

        await arena.plane.start_component(SCHEDULERS[kind])
        cpu = CpuUse(arena.pids() | more)
        await wait_until(all_bound, f"{pods} pods are bound by {kind}")
        return bindings.rate(), describe_cpu(cpu.spent_s(), pods)


def _rows(size: int, rates: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> list[Row]:
    titles = {EXTENDER: "extender alone (pods exist)", TASK_PATH: "tasks (operator makes the pods)"}
    rows = [
        Row(
            f"binding, {size} nodes: {title} / plain kube-scheduler",
            [own / plain for own, plain in zip(rates[kind], rates[PLAIN], strict=True)],
            "x",
            EXPECTED,
            f"{median(rates[kind]):.0f} / {median(rates[PLAIN]):.0f} pods/s; {notes[kind]}",
        )
        for kind, title in titles.items()
    ]
    return rows
