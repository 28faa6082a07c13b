"""What the API server has to do for the watches and Leases of many agents, which are fake; no operator, no nodes.

A driver creates a task, places it by a patch of its status as the operator does, and sees the report in a watch of all
tasks. It is the same for every number of agents, so what differs is the load by agents.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import fake_agents
from bench.cluster import CpuUse, memory_mib
from bench.fake_agents import READY, node_name
from bench.fleets import TASKS, build_request
from bench.tables import Row, percentile
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.cluster.informer import Informer, keep_all
from perllm.cluster.times import format_time
from perllm_lab.installation import install
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.process import Process
from perllm_lab.workload.manifests import served_task_manifest

CASES = ((10, 10.0), (100, 10.0), (1000, 10.0), (1000, 100.0))
"""Numbers of agents, and tasks per second."""

SPAN_S, IDLE_S = 20.0, 20.0
START_S, ANSWER_S = 180.0, 300.0
API_SERVER = "kube-apiserver"


async def measure_watching(binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return the load of the API server by agents that wait, and by each task, for several numbers of agents."""
    rows: list[Row] = []
    async with ControlPlane(binaries, folder / "kubernetes") as plane, _connect(plane) as client:
        await install(client)
        for number, rate_per_s in CASES:
            rows += await _measure(plane, Driver(client, number, rate_per_s), folder, say)
    return rows


def _connect(plane: ControlPlane) -> Client:
    return Client(load_credentials(plane.admin_kubeconfig), max_connections=64, timeout_s=ANSWER_S)


async def _measure(plane: ControlPlane, driver: "Driver", folder: Path, say: Callable[[str], None]) -> list[Row]:
    number, rate_per_s = driver.nodes, driver.rate_per_s
    arguments = ("--kubeconfig", plane.admin_kubeconfig, "--agents", number)
    argv = [sys.executable, "-m", fake_agents.__name__, *map(str, arguments)]
    agents = Process("fake agents", argv, log_file=folder / f"agents-{number}-{rate_per_s:g}.log")
    await agents.start()
    try:
        await agents.wait_until(lambda: _is_ready(agents.log_file), timeout_s=START_S)
        pids = {name: one.pid for name, one in {**plane.processes, "agents": agents}.items() if one.pid is not None}
        idle = CpuUse(pids)
        await asyncio.sleep(IDLE_S)
        idle_s = idle.spent_s()
        busy, begun_s = CpuUse(pids), time.monotonic()
        spans_ms = await driver.run()
        busy_s, took_s = busy.spent_s(), time.monotonic() - begun_s
        memory = memory_mib(pids[API_SERVER])
        await driver.clear()
    finally:
        await agents.stop()
    idle_share = idle_s[API_SERVER] / IDLE_S
    task_ms = 1e3 * (busy_s[API_SERVER] - idle_share * took_s) / len(spans_ms)
    what = f"API server, {number} fake agents, {rate_per_s:g} tasks/s"
    reached_per_s, cores = len(spans_ms) / took_s, busy_s[API_SERVER] / took_s
    say(f"{what}: idle {1e3 * idle_share:.0f} ms/s, {task_ms:.1f} ms a task, {memory:.0f} MiB, {reached_per_s:.0f}/s")
    detail = ", ".join(f"{name} {1e3 * spent_s / IDLE_S:.0f}" for name, spent_s in list(idle_s.items())[:3])
    return [
        Row(f"{what}: CPU while they wait", [1e3 * idle_share], "ms/s", "", f"ms/s: {detail}"),
        Row(f"{what}: CPU per task", [task_ms], "ms", "", f"{reached_per_s:.0f} tasks/s on {cores:.1f} cores"),
        Row(f"{what}: placed to reported, p50", [percentile(spans_ms, 0.5)], "ms"),
        Row(f"{what}: placed to reported, p99", [percentile(spans_ms, 0.99)], "ms"),
        Row(f"{what}: memory", [memory], "MiB"),
    ]


async def _is_ready(log: Path) -> bool:
    return READY in await asyncio.to_thread(log.read_text)


class Driver:
    """Runs tasks at a steady rate, on one node after the other.

    Attributes:
        nodes: how many.
        rate_per_s: how many tasks are to be created per second.
    """

    def __init__(self, client: Client, nodes: int, rate_per_s: float) -> None:
        self.nodes = nodes
        self.rate_per_s = rate_per_s
        self._client = client
        self._placed_s: dict[str, float] = {}
        self._spans_ms: dict[str, float] = {}
        self._all_seen = asyncio.Event()
        self._count = round(rate_per_s * SPAN_S)

    async def run(self) -> list[float]:
        """Return the time from placing each task to its report, in milliseconds."""
        informer = Informer(self._client, TASKS, keep_all, self._see)
        watching = asyncio.create_task(informer.run())
        try:
            await informer.synced.wait()
            begun_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    await asyncio.sleep(max(begun_s + number / self.rate_per_s - time.monotonic(), 0.0))
                    group.create_task(self._place(number))
            async with asyncio.timeout(ANSWER_S):
                await self._all_seen.wait()
        finally:
            watching.cancel()
        return list(self._spans_ms.values())

    async def clear(self) -> None:
        """Delete the tasks."""
        await self._client.delete(TASKS, {"propagationPolicy": "Background"})

    async def _place(self, number: int) -> None:
        name, node = f"n{self.nodes}-{self.rate_per_s:g}-{number}", node_name(number % self.nodes)
        await self._client.post(TASKS, served_task_manifest(build_request(name), namespace="default"))
        status: dict[str, Any] = {
            "phase": "Running",
            "nodeName": node,
            "attempts": 1,
            "runsAs": "request",
            "receivedTime": format_time(time.time()),
        }
        self._placed_s[name] = time.monotonic()
        await self._client.patch(names.task_status_path("default", name), {"status": status})

    def _see(self, _: Object | None, new: Object | None) -> None:
        if new is None or not (new.get("status") or {}).get("run"):
            return
        name = new["metadata"]["name"]
        self._spans_ms.setdefault(name, 1e3 * (time.monotonic() - self._placed_s[name]))
        if len(self._spans_ms) == self._count:
            self._all_seen.set()
