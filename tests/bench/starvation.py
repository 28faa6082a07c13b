"""How long the tasks of one namespace wait while another asks for more than it gets.

A fleet of ten slots; a bystander's small task every three seconds. Each neighbour has a lab of its own, so that all are
measured with nothing learned before.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.cluster import create_all
from bench.tables import Row
from perllm.api.names import pods_path, tasks_path
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.informer import Informer, keep_all
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.trace_replay import FINAL_PHASES
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

SCENARIO = """
name: two-nodes
description: ten slots on two nodes
model: chat
groups:
  - {name: t4, count: 1, tier: edge, gpu: t4-8b, uplink_mbps: 100, rtt_ms: 5}
  - {name: orin, count: 1, tier: edge, gpu: jetson-agx-orin-8b, uplink_mbps: 100, rtt_ms: 5}
"""
SPEED = 4.0
BYSTANDER, NEIGHBOUR = "bystander", "neighbour"
TASKS = 8
EVERY_S = 3.0
SETTLE_S = 5.0
CAP_S = 120.0
EXPECTED_S = "< 10"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What another namespace asks for.

    Attributes:
        title: for people.
        tasks: how many unfinished tasks it has.
        priority: of all of them.
        is_denied: whether its quota has no room for any pod.
        replaces: whether it makes a new task of each that ends.
    """

    title: str
    tasks: int
    priority: int = 0
    is_denied: bool = False
    replaces: bool = False


NEIGHBOURS = (
    Neighbour("no neighbour", 0),
    Neighbour("100 tasks denied by a quota", 100, is_denied=True),
    Neighbour("33 tasks of priority 1000, replaced as they end", 33, priority=1000, replaces=True),
    Neighbour("1,000 waiting tasks", 1000),
)


async def measure_starvation(binaries: Mapping[str, Path], folder: Path, say: Say) -> list[Row]:
    """Return the bystander's waits with each neighbour, and their ratio to those without one."""
    waits_s: dict[Neighbour, list[float]] = {}
    for number, neighbour in enumerate(NEIGHBOURS):
        waits_s[neighbour] = await _measure(binaries, neighbour, folder / str(number))
        say(f"starvation: with {neighbour.title}: {' '.join(f'{wait_s:.1f}' for wait_s in waits_s[neighbour])} s")
    return _rows(waits_s)


async def _measure(binaries: Mapping[str, Path], neighbour: Neighbour, folder: Path) -> list[float]:
    scenario = _write_scenario(folder)
    async with Lab(binaries, load_scenario(scenario), folder, LabSettings(scenario, SPEED)) as lab:
        for namespace in (BYSTANDER, NEIGHBOUR):
            await lab.client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        if neighbour.is_denied:
            quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
            await _post_when_ready(lab.client, f"/api/v1/namespaces/{NEIGHBOUR}/resourcequotas", quota)
        async with _kept_full(lab.client, neighbour):
            await asyncio.sleep(SETTLE_S)
            return await _wait_as_bystander(lab.client)


def _write_scenario(folder: Path) -> str:
    folder.mkdir(parents=True)
    file = folder / "scenario.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    return str(file)


@asynccontextmanager
async def _kept_full(client: Client, neighbour: Neighbour) -> AsyncIterator[None]:
    """Create the neighbour's tasks; replace those that end, if it does."""
    numbers = itertools.count()
    await _fill(client, neighbour, numbers)
    if not neighbour.replaces:
        yield
        return
    filling = asyncio.create_task(_keep_filling(client, neighbour, numbers))
    try:
        yield
    finally:
        filling.cancel()


async def _keep_filling(client: Client, neighbour: Neighbour, numbers: "itertools.count[int]") -> None:
    while True:
        await asyncio.sleep(0.5)
        await _fill(client, neighbour, numbers)


async def _fill(client: Client, neighbour: Neighbour, numbers: "itertools.count[int]") -> None:
    path = tasks_path(NEIGHBOUR)
    items = (await client.get(path))["items"]
    unfinished = sum((item.get("status") or {}).get("phase") not in FINAL_PHASES for item in items)
    missing = itertools.islice(numbers, neighbour.tasks - unfinished)
    names = [f"task-{number}" for number in missing]
    await create_all(client, path, [_task(name, NEIGHBOUR, 300, neighbour.priority) for name in names])


async def _wait_as_bystander(client: Client) -> list[float]:
    """Create the bystander's tasks; return how long each waited for its node, those that got none until the end."""
    created_s: dict[str, float] = {}
    bound_s: dict[str, float] = {}
    all_bound = asyncio.Event()

    def see(_: Object | None, new: Object | None) -> None:
        if new is not None:
            bound_s.setdefault(new["metadata"]["ownerReferences"][0]["name"], time.monotonic())
        if len(bound_s) == TASKS:
            all_bound.set()

    informer = Informer(client, pods_path(BYSTANDER), keep_all, see, query={"fieldSelector": "spec.nodeName!="})
    following = asyncio.create_task(informer.run())
    try:
        for number in range(TASKS):
            name = f"task-{number}"
            created_s[name] = time.monotonic()
            await client.post(tasks_path(BYSTANDER), _task(name, BYSTANDER, 30, 0))
            await asyncio.sleep(EVERY_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(all_bound.wait(), CAP_S)
    finally:
        following.cancel()
    now_s = time.monotonic()
    return [bound_s.get(name, now_s) - since_s for name, since_s in created_s.items()]


def _task(name: str, namespace: str, output_tokens: int, priority: int) -> Object:
    manifest = task_manifest(Request(name, "chat", 0.0, 100, output_tokens, 1000, 120.0), namespace=namespace)
    manifest["spec"]["priority"] = priority
    return manifest


async def _post_when_ready(client: Client, path: str, body: Object) -> None:
    """Create an object in a namespace that is being made."""
    async with asyncio.timeout(CAP_S):
        while True:
            try:
                await client.post(path, body)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
                await asyncio.sleep(0.1)


def _rows(waits_s: Mapping[Neighbour, Sequence[float]]) -> list[Row]:
    alone_s = median(waits_s[NEIGHBOURS[0]])
    rows = []
    for neighbour, values in waits_s.items():
        detail = f"median {median(values) / alone_s:.1f} x that with none; from creation to a node, {TASKS} tasks"
        rows.append(Row(f"bystander's wait with {neighbour.title}", values, "s", EXPECTED_S, detail))
    return rows
