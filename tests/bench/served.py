"""Tasks without a pod each: what a request costs on its way through the cluster, and how many a second get through."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.cluster import CpuUse, clear, create_all, describe_cpu, read_metric, wait_until
from bench.fleets import TASKS
from bench.tables import Row, percentile
from bench.whole_loop import LEARNED, find_pids
from e2e.audit import AuditLog, record_writes_of
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer, keep_all
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.nodes.agents import ACCOUNT, NAMESPACE
from perllm_lab.workload.manifests import served_task_manifest, task_manifest
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

RATE_PER_S, OVERHEAD_S = 20.0, 30.0
POD_RATE_PER_S, POD_OVERHEAD_S = 5.0, 20.0
WINDOW, FLOW_S = 200, 60.0
BATCH = 20
POLL_S = 0.25
PROCESSES = ("operator", "agents", "kube-apiserver")
TTL = "10s"
AGENT_USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"

Build = Callable[..., Object]


@dataclass(slots=True)
class Sightings:
    """When each task was asked for, and when its answer was first seen on the API server; Unix seconds."""

    asked_s: dict[str, float] = field(default_factory=dict)
    answered_s: dict[str, float] = field(default_factory=dict)

    def see(self, _: Object | None, new: Object | None) -> None:
        status: dict[str, Any] = (new or {}).get("status") or {}
        if new is not None and (status.get("run") or status.get("phase") == "Succeeded"):
            self.answered_s.setdefault(new["metadata"]["name"], time.time())


async def measure_served(binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return overhead and throughput of served tasks, next to pod tasks in the same lab."""
    scenario = load_scenario("modern")
    audit = AuditLog(folder / "audit", record_writes_of(OPERATOR_USER, AGENT_USER))
    settings = LabSettings("modern", 1.0, has_agents=True, flags={"kube-apiserver": audit.flags})
    async with Lab(binaries, scenario, folder, settings) as lab:
        rows = [
            *await _measure_overhead(lab, "request", served_task_manifest, RATE_PER_S, OVERHEAD_S, say),
            *await _measure_overhead(lab, "pod", task_manifest, POD_RATE_PER_S, POD_OVERHEAD_S, say),
        ]
        served = await _measure_flow(lab, audit, "served", served_task_manifest, say)
        pods = await _measure_flow(lab, audit, "pod", task_manifest, say)
    ratio = served[0].values[0] / pods[0].values[0]
    return [*rows, *served, *pods, Row("served tasks per pod task, created to learned", [ratio], "x", ">= 1.5")]


async def _measure_overhead(
    lab: Lab, kind: str, build: Build, rate_per_s: float, span_s: float, say: Callable[[str], None]
) -> list[Row]:
    """Return the time of a task from its creation to its visible answer, less the time that its node worked on it."""
    start, count = lab.truth_size(), round(rate_per_s * span_s)
    with watch_answers(lab.client) as sightings:
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(begun_s + number / rate_per_s - time.monotonic(), 0.0))
                group.create_task(_create(lab.client, sightings, make_request(f"{kind}-{number}"), build))

        async def all_answered() -> bool:
            return len(sightings.answered_s) >= count

        await wait_until(all_answered, f"{count} answers")
    worked_s = _read_work_s(lab.read_truth(start))
    overheads_ms = [
        1e3 * (sightings.answered_s[name] - asked_s - worked_s[name]) for name, asked_s in sightings.asked_s.items()
    ]
    say(f"overhead of a {kind}: median {median(overheads_ms):.0f} ms, longest {max(overheads_ms):.0f} ms")
    await clear(lab.client)
    what = f"overhead of a {kind} at {rate_per_s:g}/s"
    targets = ("<= 60", "<= 300") if kind == "request" else ("", "")
    return [
        Row(f"{what}, p50", [percentile(overheads_ms, 0.5)], "ms", targets[0], f"of {count} tasks"),
        Row(f"{what}, p99", [percentile(overheads_ms, 0.99)], "ms", targets[1], f"longest {max(overheads_ms):.0f}"),
    ]


async def _measure_flow(lab: Lab, audit: AuditLog, kind: str, build: Build, say: Callable[[str], None]) -> list[Row]:
    """Return tasks per second from creation to learned outcome while a bounded number is unfinished."""
    list(audit.read_new())
    before, created, learned = await read_metric(lab.health_url, LEARNED), 0, 0.0
    start_s, cpu = time.monotonic(), CpuUse(find_pids(lab))
    while time.monotonic() - start_s < FLOW_S:
        if created - learned <= WINDOW - BATCH:
            requests = (make_request(f"flow-{kind}-{created + number}") for number in range(BATCH))
            await create_all(lab.client, TASKS, [_with_ttl(build(one, namespace="default")) for one in requests])
            created += BATCH
        else:
            await asyncio.sleep(POLL_S)
        learned = await read_metric(lab.health_url, LEARNED) - before
    span_s, spent_s = time.monotonic() - start_s, cpu.spent_s()
    writes = Counter(f"{one.verb} {one.kind}" for one in audit.read_new() if one.code < 300)
    note = describe_cpu(spent_s, round(learned))
    say(f"{kind} tasks: {learned:.0f} learned in {span_s:.0f} s; {note}")
    await clear(lab.client)
    per_task = ", ".join(f"{what} {count / learned:.2f}" for what, count in sorted(writes.items()))
    target = ">= 60/s" if kind == "served" else ""
    return [
        Row(f"{kind} tasks, created to learned", [learned / span_s], "tasks/s", target, note),
        Row(f"writes per {kind} task", [writes.total() / learned], "", "", per_task),
        *(Row(f"CPU per {kind} task, {who}", [1e3 * spent_s[who] / learned], "ms") for who in PROCESSES),
    ]


def make_request(name: str) -> Request:
    """Return a short question with a short answer."""
    return Request(name, "chat", 0.0, prompt_tokens=100, output_tokens=12, input_bytes=400, deadline_s=60.0)


def _with_ttl(manifest: Object) -> Object:
    manifest["spec"]["ttlAfterFinished"] = TTL
    return manifest


async def _create(client: Client, sightings: Sightings, request: Request, build: Build) -> None:
    sightings.asked_s[request.name] = time.time()
    await client.post(TASKS, build(request, namespace="default"))


def _read_work_s(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return how long the node of each task worked on it, from the arrival of the request to its end."""
    return {
        line["task"]: (_read_s(line["finished"]) - _read_s(line["created"]))
        if line["kind"] == "request"
        else (line["transfer_s"] or 0.0) + (line["inference_s"] or 0.0)
        for line in lines
        if line["kind"] in ("pod", "request") and line["outcome"] == "Succeeded"
    }


def _read_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def watch_answers(client: Client) -> Iterator[Sightings]:
    """Follow the answers of tasks."""
    sightings = Sightings()
    informer = Informer(client, TASKS, keep_all, sightings.see)
    following = asyncio.get_running_loop().create_task(informer.run())
    try:
        yield sightings
    finally:
        following.cancel()
