"""Pods bound per second: PerLLM and the plain kube-scheduler, on the same control plane and nodes.

Nodes are bare Node objects and nothing runs, so only scheduling is measured.

burst       work is created while everything runs; from the first creation to the last binding, as users see it
backlog     all pods exist before the scheduler starts; from the first binding to the last, the scheduler alone

plain       the cluster's kube-scheduler
extender    a private kube-scheduler with PerLLM's extender alone
narrowed    the same with pods that name their nodes, as those of tasks do
tasks       everything: the operator makes a pod of each task, announces its placement and writes its status
"""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from bench import lone_extender
from bench.cluster import AT_A_TIME, TIMEOUT_S, CpuUse, clear, create_all, describe_cpu, wait_until, watch_bindings
from bench.fleets import PODS, TASKS, build_pods, build_scenario, build_tasks
from bench.latency import answers
from bench.tables import Row
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.controller.narrowing import narrow
from perllm.extender.scheduler import scheduler_configuration
from perllm.settings.tasks import PodSettings
from perllm_lab.installation import SCHEDULER_USER, install
from perllm_lab.kubernetes import probe
from perllm_lab.kubernetes.components import SCHEDULER
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import build_operator
from perllm_lab.nodes.registration import Registrar

Say = Callable[[str], None]

PLAIN, EXTENDER, NARROWED, TASK_PATH = "plain", "extender", "narrowed", "tasks"
NEVER = "--node-monitor-grace-period=1h"
BENCH_SCHEDULER = "bench-scheduler"
SCHEDULERS = {PLAIN: SCHEDULER, EXTENDER: BENCH_SCHEDULER, NARROWED: BENCH_SCHEDULER, TASK_PATH: "perllm-scheduler"}
SCHEDULER_NAMES = {PLAIN: "default-scheduler", EXTENDER: "bench", NARROWED: "bench", TASK_PATH: "perllm"}
NAMED_NODES = PodSettings().named_nodes


@dataclass(frozen=True, slots=True)
class Turn:
    """Who schedules, and whether the pods exist before."""

    kind: str
    is_backlog: bool


TURNS = (
    *(Turn(kind, is_backlog=False) for kind in SCHEDULERS),
    *(Turn(kind, is_backlog=True) for kind in (PLAIN, EXTENDER, NARROWED)),
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is measured: pods in one burst, turns of each contender, and whether also of backlogs."""

    pods: int
    rounds: int
    has_backlogs: bool = True

    @property
    def turns(self) -> list[Turn]:
        """The turns of one round."""
        return [turn for turn in TURNS if self.has_backlogs or not turn.is_backlog]


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
    """A control plane, bare nodes, the operator, and one kube-scheduler for each contender.

    Args:
        binaries: programs by component name.
        folder: for data and logs.
        settings: of the operator, beyond its addresses.
    """

    def __init__(
        self, binaries: Mapping[str, Path], folder: Path, settings: Mapping[str, object] | None = None
    ) -> None:
        self.folder = folder
        self._settings = settings or {}
        self.plane = ControlPlane(binaries, folder / "kubernetes", flags={"kube-controller-manager": [NEVER]})
        self.extender_port, self.operator_port, self.health_port = find_free_ports(3)
        self.client: Client
        self.operator: Process
        self._stack = AsyncExitStack()
        self.helpers: dict[str, Process] = {}
        self.nodes: list[str] = []
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
            configuration = scheduler_configuration(f"http://{LOOPBACK}:{port}", SCHEDULER_NAMES[kind])
            await self.plane.start_scheduler(SCHEDULERS[kind], configuration, user=SCHEDULER_USER)
            await self.plane.stop_component(SCHEDULERS[kind])

    @property
    def health_url(self) -> str:
        """Where the operator publishes its metrics."""
        return f"http://{LOOPBACK}:{self.health_port}"

    async def grow(self, size: int) -> None:
        """Add nodes until there are `size`, and start the operator again: with nothing learned."""
        wanted = {node.name: node for node in build_scenario(size).nodes()}
        registrar = Registrar(self.client)
        gate = asyncio.Semaphore(AT_A_TIME)

        async def register(name: str) -> None:
            async with gate:
                await registrar.register(wanted[name])

        await asyncio.gather(*(register(name) for name in wanted.keys() - set(self.nodes)))
        self.nodes = list(wanted)
        await self.operator.stop()
        await self.operator.start()
        await self.operator.wait_until(lambda: probe.answers(f"{self.health_url}/readyz"), timeout_s=TIMEOUT_S)

    def pids(self) -> dict[str, int]:
        """Return the processes that may use the processors."""
        processes = {**self.plane.processes, **self.helpers, "operator": self.operator}
        return {name: process.pid for name, process in processes.items() if process.pid is not None}

    def prefix(self) -> str:
        """Return a new prefix for names."""
        return f"burst-{next(self._numbers)}"

    def build_extender(self, size: int) -> Process:
        """Return the extender alone."""
        arguments = ("--nodes", size, "--port", self.extender_port, "--kubeconfig", self.plane.admin_kubeconfig)
        argv = [sys.executable, "-m", lone_extender.__name__, *map(str, arguments)]
        return Process("lone extender", argv, log_file=self.folder / "extender.log")

    def _build_operator(self) -> Process:
        ports = {"extender_port": self.operator_port, "health_host": LOOPBACK, "health_port": self.health_port}
        unreachable = {"url": f"http://{LOOPBACK}:1"}
        config = {"server": ports, "telemetry": unreachable, "log": {"format": "json"}, **self._settings}
        return build_operator(self.plane, self.folder, config)


async def _compare(arena: Arena, size: int, pace: Pace, say: Say) -> tuple[dict[Turn, list[float]], dict[Turn, str]]:
    """Let each contender have a turn, round by round; return pods per second of each, and what used the processors."""
    rates: dict[Turn, list[float]] = {turn: [] for turn in pace.turns}
    notes: dict[Turn, str] = {}
    for number, turn in itertools.product(range(pace.rounds), pace.turns):
        async with _extender(arena, size) if turn.kind in (EXTENDER, NARROWED) else nullcontext():
            rate, notes[turn] = await _take(turn, arena, pace.pods)
        if turn.kind != PLAIN:
            await arena.plane.stop_component(SCHEDULERS[turn.kind])
        rates[turn].append(rate)
        mode = "backlog" if turn.is_backlog else "burst"
        say(f"binding: {size} nodes, round {number + 1}, {turn.kind}, {mode}: {rate:.0f} pods/s; {notes[turn]}")
        await clear(arena.client)
    return rates, notes


@asynccontextmanager
async def _extender(arena: Arena, size: int) -> AsyncIterator[None]:
    process = arena.build_extender(size)
    await process.start()
    arena.helpers["extender"] = process
    try:
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{arena.extender_port}") as session:
            await process.wait_until(lambda: answers(session), timeout_s=TIMEOUT_S)
        yield
    finally:
        del arena.helpers["extender"]
        await process.stop(grace_s=1.0)


async def _take(turn: Turn, arena: Arena, pods: int) -> tuple[float, str]:
    scheduler, prefix = SCHEDULERS[turn.kind], arena.prefix()
    path, bodies = PODS, build_pods(prefix, pods, SCHEDULER_NAMES[turn.kind])
    if turn.kind == TASK_PATH:
        path, bodies = TASKS, build_tasks(prefix, pods)
    elif turn.kind == NARROWED:
        bodies = [_narrow(body, number, arena.nodes) for number, body in enumerate(bodies)]
    with watch_bindings(arena.client) as bindings:

        async def all_bound() -> bool:
            return len(bindings.times_s) >= pods

        if turn.is_backlog:
            await arena.plane.stop_component(scheduler)
            await create_all(arena.client, path, bodies)
        await arena.plane.start_component(scheduler)
        cpu, start_s, early = CpuUse(arena.pids()), time.monotonic(), len(bindings.times_s)
        if not turn.is_backlog:
            await create_all(arena.client, path, bodies)
        await wait_until(all_bound, f"{pods} pods are bound by {scheduler}")
        note = describe_cpu(cpu.spent_s(), max(pods - early, 1))
    return bindings.rate(None if turn.is_backlog else start_s), note


def _narrow(pod: Object, number: int, nodes: Sequence[str]) -> Object:
    """Return a pod that names its nodes; the next pod names the nodes that follow."""
    named = [nodes[(number * NAMED_NODES + step) % len(nodes)] for step in range(NAMED_NODES)]
    return {**pod, "spec": narrow(pod["spec"], (), named) or pod["spec"]}


def _rows(size: int, rates: Mapping[Turn, Sequence[float]], notes: Mapping[Turn, str]) -> list[Row]:
    titles = {
        Turn(TASK_PATH, is_backlog=False): ("tasks created / pods created, plain", ">= 0.5x"),
        Turn(EXTENDER, is_backlog=False): ("pods created, extender alone / plain", ">= 0.7x"),
        Turn(NARROWED, is_backlog=False): ("narrowed pods created, extender alone / plain", ">= 0.75x"),
        Turn(EXTENDER, is_backlog=True): ("pods exist, extender alone / plain", ">= 0.7x"),
        Turn(NARROWED, is_backlog=True): ("narrowed pods exist, extender alone / plain", ">= 0.75x"),
    }
    rows = []
    for turn, (title, expected) in titles.items():
        if turn not in rates:
            continue
        plain = Turn(PLAIN, is_backlog=turn.is_backlog)
        ratios = [own / other for own, other in zip(rates[turn], rates[plain], strict=True)]
        detail = f"{median(rates[turn]):.0f} / {median(rates[plain]):.0f} pods/s; {notes[turn]}"
        rows.append(Row(f"bound per second, {size} nodes: {title}", ratios, "x", expected, detail))
    return rows
