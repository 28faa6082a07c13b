"""The same requests to the same simulated model servers, through PerLLM and through vllm-router.

vllm-router spreads chats: it knows neither deadlines nor energy, keeps no task, and sends a request on immediately.
PerLLM knows both, stores every task and its answer on the API server, and may let a task wait. Both start from nothing:
PerLLM has learned nothing, and all servers are idle. What counts is when the client has the whole answer, with PerLLM
the moment at which a watch of the API server shows it. A client of the router closes its request at the deadline, as
PerLLM does.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import aiohttp

from bench.router import POLICIES, install_router, open_router
from bench.served import watch_answers
from bench.tables import Row
from perllm.api.task_status import RunsAs
from perllm_lab.demo import read_totals
from perllm_lab.kubernetes.toolchain import default_cache_folder
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.report.results import FleetEnergy, fleet_energy
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.trace_replay import TraceReplay, as_tasks
from perllm_lab.workload.prompts import write_prompt
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

SCENARIO = "modern"
TRACE = "synthetic:conversation"
# Slow enough that two processors never lag behind the simulated servers.
SPEED = 0.2
LOADS = (0.3, 0.6, 0.9)
TASKS = 500
TAIL_S = 240.0

AnswerTimes = Mapping[str, float]
"""Seconds from sending a request to its whole answer, by name; requests without an answer are missing."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Figures of one contender at one load.

    Attributes:
        hit_share: share of the requests answered by their deadline.
        token_hit_share: the same, each weighted by its tokens.
        energy_j: of all nodes until the last answer, idle ones too, per request in time.
    """

    hit_share: float
    token_hit_share: float
    energy_j: float

    def __str__(self) -> str:
        return f"{self.hit_share:.1%} in time, {self.token_hit_share:.1%} of tokens, {self.energy_j:.0f} J"


async def measure_peer(binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return PerLLM's figures and those of the router's policies, at every load."""
    program = await install_router(default_cache_folder())
    scenario = load_scenario(SCENARIO)
    rows: list[Row] = []
    for load in LOADS:
        requests = draw_requests(scenario, TRACE, TASKS, load, seed=1)
        found: dict[str, Contest] = {}
        async with Lab(binaries, scenario, folder / str(load), LabSettings(SCENARIO, SPEED, has_agents=True)) as lab:
            for name in ("PerLLM", *POLICIES):
                before = await read_totals(lab)
                waited_s = await _answer(lab, name, program, requests)
                idle_w = sum(node.gpu.idle_power_w for node in scenario.nodes())
                found[name] = _judge(requests, waited_s, fleet_energy(before, await read_totals(lab), idle_w))
                say(f"load {load:g}, {name}: {found[name]}")
                await lab.restart_nodes()
        rows += _compare(load, found)
    return rows


async def _answer(lab: Lab, name: str, program: Path, requests: Sequence[Request]) -> AnswerTimes:
    if name == "PerLLM":
        return await _answer_by_tasks(lab, requests)
    servers = [f"{lab.nodes_url}/nodes/{node.name}" for node in lab.scenario.nodes()]
    async with open_router(program, name, servers, lab.folder / f"{name}.log") as url:
        return await _answer_by_router(url, requests)


def _judge(requests: Sequence[Request], waited_s: AnswerTimes, fleet: FleetEnergy) -> Contest:
    met = [one for one in requests if waited_s.get(one.name, inf) * SPEED <= one.deadline_s]
    # The same span for all: the arrivals, and the longest deadline after them.
    span_s = requests[-1].at_s + max(one.deadline_s for one in requests)
    return Contest(
        len(met) / len(requests),
        sum(map(_tokens, met)) / sum(map(_tokens, requests)),
        fleet.over(span_s) / max(len(met), 1),
    )


def _tokens(request: Request) -> int:
    return request.prompt_tokens + request.output_tokens


async def _answer_by_tasks(lab: Lab, requests: Sequence[Request]) -> AnswerTimes:
    kind = as_tasks("default", SPEED, strict=True, runs_as=RunsAs.REQUEST)
    replay = TraceReplay(lab.client, kind, requests, SPEED)
    with watch_answers(lab.client) as sightings:
        await replay.run(timeout_s=TAIL_S)
    await replay.clear()
    return {name: seen_s - replay.created_s[name] for name, seen_s in sightings.answered_s.items()}


async def _answer_by_router(url: str, requests: Sequence[Request]) -> AnswerTimes:
    found: dict[str, float] = {}
    start_s = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for request in requests:
            await asyncio.sleep(max(start_s + request.at_s / SPEED - time.monotonic(), 0.0))
            group.create_task(_chat(session, url, request, found))
    return found


async def _chat(session: aiohttp.ClientSession, url: str, request: Request, found: dict[str, float]) -> None:
    """Send a request and note when its stream has ended; without an answer there is nothing to note."""
    sent_s = time.monotonic()
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": write_prompt(request)}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        async with (
            asyncio.timeout(request.deadline_s / SPEED),
            session.post(f"{url}/v1/chat/completions", json=body) as answer,
        ):
            answer.raise_for_status()
            text = await answer.text()
    except (TimeoutError, aiohttp.ClientError):
        return
    if "[DONE]" in text:
        found[request.name] = time.monotonic() - sent_s


def _compare(load: float, found: Mapping[str, Contest]) -> list[Row]:
    best = max(POLICIES, key=lambda name: found[name].hit_share)
    ours, theirs = found["PerLLM"], found[best]
    detail = "; ".join(f"{name}: {one}" for name, one in found.items())
    return [
        Row(
            f"load {load:g}: in time, PerLLM per {best}",
            [ours.hit_share / max(theirs.hit_share, 1e-9)],
            "x",
            "",
            detail,
        ),
        Row(
            f"load {load:g}: tokens in time",
            [ours.token_hit_share / max(theirs.token_hit_share, 1e-9)],
            "x",
        ),
        Row(f"load {load:g}: fleet J per task in time", [ours.energy_j / theirs.energy_j], "x"),
    ]
