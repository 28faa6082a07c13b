"""How long one call of the extender takes, as kube-scheduler would see it: over HTTP from another process."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench import lone_extender
from bench.fleets import build_pods, build_scenario
from bench.tables import Row, percentile
from perllm_lab.kubernetes.ports import find_free_ports
from perllm_lab.kubernetes.process import Process

CALLS = 400
WARM_UP = 50
POD_BYTES = 4096
VERBS = ("filter", "prioritize", "bind")
LIMITS_MS = {1000: 10, 5000: 3}
START_S = 120.0


async def measure_latency(sizes: Sequence[int], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return percentiles per verb, and of the three together, which is what one pod costs, for numbers of nodes."""
    return [row for nodes in sizes for row in await _measure(nodes, folder / str(nodes), say)]


async def _measure(nodes: int, folder: Path, say: Callable[[str], None]) -> list[Row]:
    say(f"latency: {CALLS} pods past {nodes} nodes")
    (port,) = find_free_ports(1)
    argv = [sys.executable, "-m", lone_extender.__name__, "--nodes", str(nodes), "--port", str(port)]
    process = Process("lone extender", argv, log_file=folder / "extender.log")
    await process.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await process.wait_until(lambda: answers(session), timeout_s=START_S)
            spans = await _call(session, [node.name for node in build_scenario(nodes).nodes()])
    finally:
        await process.stop(grace_s=1.0)
    limit = f"p99 <= {LIMITS_MS[nodes]} ms" if nodes in LIMITS_MS else ""
    rows = [_row(f"extender {verb}, {nodes} nodes", spans[verb], limit) for verb in VERBS[:2]]
    rows.append(_row(f"extender bind, {nodes} nodes, API server that says yes", spans["bind"], limit))
    return [
        *rows,
        _row(f"extender all three, {nodes} nodes", [sum(three) for three in zip(*spans.values(), strict=True)]),
    ]


async def answers(session: aiohttp.ClientSession) -> bool:
    """Return whether the extender serves."""
    try:
        async with session.post("/prioritize", data=b"{}") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _call(session: aiohttp.ClientSession, names: list[str]) -> dict[str, list[float]]:
    """Send pods one after the other, as the scheduling cycle does; return milliseconds per verb."""
    spans: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for index in range(WARM_UP + CALLS):
        pod = _pod(index)
        arguments = {"Pod": pod, "Nodes": None, "NodeNames": names}
        passed, filtering = await _post(session, "filter", arguments)
        scores, ranking = await _post(session, "prioritize", {**arguments, "NodeNames": passed["NodeNames"]})
        best = max(scores, key=lambda one: int(one["Score"]))["Host"]
        metadata = pod["metadata"]
        binding = {"PodName": metadata["name"], "PodNamespace": "default", "PodUID": metadata["uid"], "Node": best}
        bound, carrying_out = await _post(session, "bind", binding)
        if bound["Error"]:
            raise RuntimeError(f"the extender did not bind: {bound['Error']}")
        if index >= WARM_UP:
            for verb, span_ms in zip(VERBS, (filtering, ranking, carrying_out), strict=True):
                spans[verb].append(span_ms)
    return spans


async def _post(session: aiohttp.ClientSession, verb: str, arguments: dict[str, Any]) -> tuple[Any, float]:
    body = orjson.dumps(arguments)
    start_s = time.perf_counter()
    async with session.post(f"/{verb}", data=body, headers={"Content-Type": "application/json"}) as answer:
        content = await answer.read()
    span_ms = (time.perf_counter() - start_s) * 1e3
    return orjson.loads(content), span_ms


def _pod(index: int) -> dict[str, Any]:
    """Return a pod of about the size that pods have in practice."""
    pod: dict[str, Any] = build_pods("pod", 1, "perllm")[0]
    pod["metadata"] |= {"name": f"pod-{index}", "uid": f"00000000-0000-0000-0000-{index:012d}"}
    missing = POD_BYTES - len(json.dumps(pod))
    pod["spec"]["containers"][0]["env"] = [
        {"name": f"VARIABLE_{number}", "value": "x" * 64} for number in range(missing // 104)
    ]
    return pod


def _row(what: str, spans_ms: list[float], expected: str = "") -> Row:
    p99_ms = percentile(spans_ms, 0.99)
    detail = f"p50 {percentile(spans_ms, 0.5):.2f} ms; {len(spans_ms)} calls over HTTP"
    return Row(what, [p99_ms], "ms (p99)", expected, detail)
