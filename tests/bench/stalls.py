"""How the operator starts, and answers meanwhile, with many finished tasks that are kept and many that wait.

The finished tasks and their pods are written straight to the API server. Nodes are bare, kube-scheduler is at work, and
the extender, the health endpoint and an idle process are asked at the same steady pace.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from bench.binding import SCHEDULERS, TASK_PATH, Arena
from bench.cluster import create_all, memory_mib, peak_memory_mib, read_metric, wait_until
from bench.fleets import PODS, TASKS, build_pods, build_scenario, build_tasks
from bench.kept import Kept, do_all, run_pattern
from bench.probes import Answers, Probe, probed
from bench.tables import Row, percentile
from bench.whole_loop import LEARNED
from perllm.cluster.client import ApiError
from perllm_lab.kubernetes import probe
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.process import Process

KEPT = (1000, 5000, 10000)
PENDING = 5000
NODES = 100
WATCHED_S = 15.0
"""How long probes go on once all tasks are known."""

NEARLY_ALL = 0.98
POLL_S = 0.1
SHARE = 0.999
SETTLING = {"energy_patience_s": 1.0}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What one start of the operator was like.

    Attributes:
        ready_s: until it said that it was ready.
        known_s: until it knew all waiting tasks.
        spans_ms: of the answers to each probe, from the start on.
        returning_ms: the same while all nodes left and returned.
        memory_mib: resident set at the end, and its peak.
    """

    ready_s: float
    known_s: float
    spans_ms: Mapping[str, Sequence[float]]
    returning_ms: Mapping[str, Sequence[float]]
    memory_mib: tuple[float, float]


async def measure_stalls(binaries: Mapping[str, Path], folder: Path, say: Say) -> list[Row]:
    """Return times, latencies and memory for each number of kept tasks."""
    rows: list[Row] = []
    async with Arena(binaries, folder, SETTLING) as arena, _idle_process(folder) as idle:
        await arena.grow(NODES)
        await arena.plane.start_component(SCHEDULERS[TASK_PATH])
        kept = await run_pattern(arena.client)
        for count in KEPT:
            start = await _measure(arena, kept, count, idle)
            rows += _rows(count, start)
            say(f"stalls: {count} kept: {_describe(start)}")
    return rows


async def _measure(arena: Arena, kept: Kept, count: int, idle: Probe) -> Start:
    """Start the operator with `count` kept tasks and `PENDING` new ones; leave only the kept ones."""
    await arena.operator.stop()
    added = count - kept.count
    await kept.grow(count)
    await _settle(arena, added)
    await create_all(arena.client, TASKS, build_tasks(f"new-{count}", PENDING))
    pod = build_pods("probe", 1, "perllm")[0]
    pod["metadata"] |= {"uid": "probe"}
    call = orjson.dumps({"Pod": pod, "Nodes": None, "NodeNames": [node.name for node in build_scenario(NODES).nodes()]})
    probes = {
        "extender": Probe(f"http://{LOOPBACK}:{arena.operator_port}/prioritize", call),
        "healthz": Probe(f"{arena.health_url}/healthz"),
        "idle": idle,
    }
    async with probed(probes) as answers:
        start_s = time.monotonic()
        await arena.operator.start()
        ready_s, known_s = await asyncio.gather(_wait_ready(arena, start_s), _wait_known(arena, start_s))
        await asyncio.sleep(WATCHED_S)
    returning = await _return_nodes(arena, probes)
    pid = arena.operator.pid or 0
    memory = memory_mib(pid), peak_memory_mib(pid)
    await _clear_pending(arena)
    return Start(ready_s, known_s, answers.spans_ms, returning.spans_ms, memory)


async def _settle(arena: Arena, count: int) -> None:
    """Have the operator learn from tasks that it has not seen before, so that its next start is a restart."""
    await arena.operator.start()
    await _wait_ready(arena, time.monotonic())

    async def are_learned() -> bool:
        return await read_metric(arena.health_url, LEARNED) >= count

    await wait_until(are_learned, f"{count} outcomes are learned")
    await arena.operator.stop()


async def _wait_ready(arena: Arena, start_s: float) -> float:
    async def is_ready() -> bool:
        return await probe.answers(f"{arena.health_url}/readyz")

    await wait_until(is_ready, "the operator is ready", poll_s=POLL_S)
    return time.monotonic() - start_s


async def _wait_known(arena: Arena, start_s: float) -> float:
    async def are_known() -> bool:
        with suppress(aiohttp.ClientError):
            waiting = await read_metric(arena.health_url, "perllm_tasks_waiting")
            return waiting + await read_metric(arena.health_url, "perllm_tasks_in_flight") >= NEARLY_ALL * PENDING
        return False

    await wait_until(are_known, "the operator knows the waiting tasks", poll_s=POLL_S)
    return time.monotonic() - start_s


async def _return_nodes(arena: Arena, probes: Mapping[str, Probe]) -> Answers:
    """Cordon all nodes and allow pods on them again; return how the probes were answered meanwhile."""
    nodes = [item["metadata"]["name"] for item in (await arena.client.get("/api/v1/nodes"))["items"]]
    async with probed(probes) as answers:
        for is_closed in (True, False):

            async def patch(name: str, is_closed: bool = is_closed) -> None:
                await arena.client.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": is_closed}})

            await do_all(patch, nodes)
            await asyncio.sleep(WATCHED_S / 2)
    return answers


async def _clear_pending(arena: Arena) -> None:
    """Delete the waiting tasks and their pods, which are all that is left in their namespace."""
    client, at_once = arena.client, {"gracePeriodSeconds": 0}

    async def delete(path: str) -> None:
        with suppress(ApiError):  # by now it may be gone
            await client.delete(path, at_once)

    async def are_gone() -> bool:
        # One by one, since a collection of thousands takes the API server longer than a request may last.
        listings = {path: await client.get(path) for path in (TASKS, PODS)}
        left = [f"{path}/{item['metadata']['name']}" for path, listing in listings.items() for item in listing["items"]]
        await do_all(delete, left)
        return not left

    await wait_until(are_gone, "the waiting tasks are gone")


@asynccontextmanager
async def _idle_process(folder: Path) -> AsyncIterator[Probe]:
    """Run a process that does nothing but answer; its lag is the machine's, and the benchmark's own."""
    (port,) = find_free_ports(1)
    content = folder / "idle"
    content.mkdir(parents=True)
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK, "--directory", str(content)]
    process = Process("idle process", argv, log_file=folder / "idle.log")
    await process.start()
    try:
        yield Probe(f"http://{LOOPBACK}:{port}/")
    finally:
        await process.stop(grace_s=1.0)


def _rows(count: int, start: Start) -> list[Row]:
    what = f"{count} kept, {PENDING} waiting"
    resident, peak = start.memory_mib
    return [
        Row(f"{what}: start until ready", [start.ready_s], "s", "<= 5"),
        Row(f"{what}: start until all tasks are known", [start.known_s], "s", "<= 5"),
        _latency_row(f"{what}: extender, since its start", start.spans_ms, "extender", "<= 500"),
        _latency_row(f"{what}: healthz, since its start", start.spans_ms, "healthz", "<= 300"),
        _latency_row(f"{what}: extender, while {NODES} nodes return", start.returning_ms, "extender", "<= 500"),
        Row(f"{what}: operator memory, RSS", [resident], "MiB", "<= 300", f"peak {peak:.0f} MiB"),
    ]


def _latency_row(what: str, spans_ms: Mapping[str, Sequence[float]], name: str, expected: str) -> Row:
    idle_ms = percentile(spans_ms["idle"], SHARE)
    detail = f"idle process {idle_ms:.0f} ms; {len(spans_ms[name])} requests"
    return Row(what, [percentile(spans_ms[name], SHARE)], "ms (p99.9)", expected, detail)


def _describe(start: Start) -> str:
    figures = {name: percentile(spans, SHARE) for name, spans in start.spans_ms.items()}
    latencies = ", ".join(f"{name} {span_ms:.0f} ms" for name, span_ms in figures.items())
    return f"ready {start.ready_s:.1f} s, known {start.known_s:.1f} s, {latencies}, {start.memory_mib[0]:.0f} MiB"
