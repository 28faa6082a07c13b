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

from cluster import CpuUse, memory_mib
from fake_agents import READY, node_name
from fleets import TASKS, build_request
from tables import Row, percentile

from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.cluster.informer import Informer, keep_all
from perllm.cluster.times import format_time
from perllm_lab.installation import install
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.process import Process
from perllm_lab.workload.manifests import served_task_manifest

NUMBERS = (10, 100, 1000)
RATE_PER_S, SPAN_S, IDLE_S = 10.0, 20.0, 20.0
START_S, ANSWER_S = 180.0, 60.0
API_SERVER = "kube-apiserver"


async def measure_watching(binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return the load of the API server by agents that wait, and by each task, for several numbers of agents."""
    rows: list[Row] = []
    async with ControlPlane(binaries, folder / "kubernetes") as plane, _connect(plane) as client:
        await install(client)
        for number in NUMBERS:
            rows += await _measure(plane, client, number, folder, say)
    return rows


def _connect(plane: ControlPlane) -> Client:
    return Client(load_credentials(plane.admin_kubeconfig), max_connections=64)


async def _measure(
    plane: ControlPlane, client: Client, number: int, folder: Path, say: Callable[[str], None]
) -> list[Row]:
    arguments = ("--kubeconfig", plane.admin_kubeconfig, "--agents", number)
    argv = [sys.executable, str(Path(__file__).with_name("fake_agents.py")), *map(str, arguments)]
    agents = Process("fake agents", argv, log_file=folder / f"agents-{number}.log")
    await agents.start()
    try:
        await agents.wait_until(lambda: _is_ready(agents.log_file), timeout_s=START_S)
        pids = {name: one.pid for name, one in {**plane.processes, "agents": agents}.items() if one.pid is not None}
        idle = CpuUse(pids)
        await asyncio.sleep(IDLE_S)
        idle_s = idle.spent_s()
        busy, begun_s = CpuUse(pids), time.monotonic()
        spans_ms = await Driver(client, number).run()
        busy_s, took_s = busy.spent_s(), time.monotonic() - begun_s
        memory = memory_mib(pids[API_SERVER])
    finally:
        await agents.stop()
    idle_share = idle_s[API_SERVER] / IDLE_S
    task_ms = 1e3 * (busy_s[API_SERVER] - idle_share * took_s) / len(spans_ms)
    say(f"{number} fake agents: idle {1e3 * idle_share:.0f} ms/s, {task_ms:.1f} ms a task, {memory:.0f} MiB")
    what = f"API server, {number} fake agents"
    detail = ", ".join(f"{name} {1e3 * spent_s / IDLE_S:.0f}" for name, spent_s in list(idle_s.items())[:3])
    return [
        Row(f"{what}: CPU while they wait", [1e3 * idle_share], "ms/s", "", f"ms/s: {detail}"),
        Row(f"{what}: CPU per task", [task_ms], "ms", "", f"{len(spans_ms)} tasks at {RATE_PER_S:g}/s"),
        Row(f"{what}: placed to reported, p50", [percentile(spans_ms, 0.5)], "ms"),
        Row(f"{what}: placed to reported, p99", [percentile(spans_ms, 0.99)], "ms"),
        Row(f"{what}: memory", [memory], "MiB"),
    ]


async def _is_ready(log: Path) -> bool:
    return READY in await asyncio.to_thread(log.read_text)


class Driver:
    """Runs tasks at a steady rate, on one node after the other."""

    def __init__(self, client: Client, nodes: int) -> None:
        self._client = client
        self._nodes = nodes
        self._placed_s: dict[str, float] = {}
        self._spans_ms: dict[str, float] = {}
        self._all_seen = asyncio.Event()
        self._count = round(RATE_PER_S * SPAN_S)

    async def run(self) -> list[float]:
        """Return the time from placing each task to its report, in milliseconds."""
        informer = Informer(self._client, TASKS, keep_all, self._see)
        watching = asyncio.create_task(informer.run())
        try:
            await informer.synced.wait()
            begun_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    await asyncio.sleep(max(begun_s + number / RATE_PER_S - time.monotonic(), 0.0))
                    group.create_task(self._place(f"n{self._nodes}-{number}", node_name(number % self._nodes)))
            async with asyncio.timeout(ANSWER_S):
                await self._all_seen.wait()
            await self._client.delete(TASKS, {"propagationPolicy": "Background"})
        finally:
            watching.cancel()
        return list(self._spans_ms.values())

    async def _place(self, name: str, node: str) -> None:
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
