"""How wrong predictions are where others send requests to the same model servers, with and without counting those.

A load generator sends bursts of requests to the servers of every second node, each at another time. The same tasks and
the same bursts run in two labs. In one, agents see them in the metrics of the servers; in the other, the servers have
no metrics, so PerLLM knows of its own requests only. The tasks of the first quarter are left out: nothing was learned.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp

from bench.tables import Row
from perllm.api.task_status import RunsAs
from perllm.cluster.client import Object
from perllm_lab.demo import find_lab_shortage
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.report.results import EnergyErrors, judge_energies
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.trace_replay import TraceReplay, as_tasks
from perllm_lab.workload.prompts import write_prompt
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

SCENARIO, TRACE, NAMESPACE = "demo", "synthetic:conversation", "default"
LOAD, TASKS, SEED = 0.4, 300, 1
STREAMS = 6
BURST_S, PAUSE_S = 15.0, 15.0
PROMPT_TOKENS, OUTPUT_TOKENS = 500, 150
WARM_UP = 0.25
TAIL_S, MEASURE_S = 180.0, 60.0
COUNTED, HIDDEN = "counted", "not counted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tasks of a lab.

    Attributes:
        latency: errors of the predicted seconds.
        energy: errors of the predicted joules, against the truth.
        hit_share: share of the tasks that were in time.
        foreign: requests of others that were answered.
    """

    latency: EnergyErrors
    energy: EnergyErrors
    hit_share: float
    foreign: int


async def measure_foreign(
    binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None], *, tasks: int = TASKS
) -> list[Row]:
    """Return the errors of predictions with and without counting foreign traffic."""
    found = {
        kind: await _run(binaries, folder / kind.replace(" ", "-"), kind, tasks, say) for kind in (COUNTED, HIDDEN)
    }
    ours, blind = found[COUNTED], found[HIDDEN]
    return [
        *(row for kind, one in found.items() for row in _describe(kind, one)),
        Row(
            "error of predicted time, counted per not counted", [ours.latency.median / blind.latency.median], "x", "< 1"
        ),
        Row(
            "error of predicted energy, counted per not counted", [ours.energy.median / blind.energy.median], "x", "< 1"
        ),
        Row("tasks in time, counted per not counted", [ours.hit_share / blind.hit_share], "x"),
    ]


async def _run(
    binaries: Mapping[str, Path], folder: Path, kind: str, tasks: int, say: Callable[[str], None]
) -> Outcome:
    scenario = load_scenario(SCENARIO)
    requests = draw_requests(scenario, TRACE, tasks, LOAD, SEED)
    async with Lab(binaries, scenario, folder, LabSettings(SCENARIO, has_agents=True)) as lab:
        if kind == HIDDEN:
            await _hide_load(lab)
        start = lab.truth_size()
        replay = TraceReplay(lab.client, as_tasks(NAMESPACE, 1.0, runs_as=RunsAs.REQUEST), requests, 1.0)
        async with _send_bursts(lab):
            await replay.run(timeout_s=TAIL_S)
        await replay.wait_measured(timeout_s=MEASURE_S)
        if shortage := await find_lab_shortage(lab, replay):
            say(f"foreign traffic {kind}: {shortage}")
        truth = [line for line in lab.read_truth(start) if line.get("outcome") == "Succeeded"]
    energies_j = {line["task"]: line["energy_j"] for line in truth}
    judged = [replay.objects[one.name] for one in requests[round(WARM_UP * tasks) :]]
    foreign = sum(line["task"].startswith("foreign-") for line in truth)
    outcome = _judge(judged, energies_j, foreign)
    say(f"foreign traffic {kind}: {outcome}")
    return outcome


async def _hide_load(lab: Lab) -> None:
    async with aiohttp.ClientSession(lab.nodes_url, raise_for_status=True) as session:
        for node in lab.scenario.nodes():
            async with session.post(f"/nodes/{node.name}/server/hide-load"):
                pass


@asynccontextmanager
async def _send_bursts(lab: Lab) -> AsyncIterator[None]:
    """Send bursts of requests to every second node meanwhile."""
    nodes = [node.name for node in lab.scenario.nodes()][::2]
    numbers, start_s = count(), time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(lab.nodes_url, connector=connector) as session:

        async def stream(node: str, offset_s: float) -> None:
            while True:
                into_s = (time.monotonic() - start_s + offset_s) % (BURST_S + PAUSE_S)
                if into_s > BURST_S:
                    await asyncio.sleep(BURST_S + PAUSE_S - into_s)
                await _ask(session, node, lab.scenario.model, next(numbers))

        offsets_s = {node: (BURST_S + PAUSE_S) * index / len(nodes) for index, node in enumerate(nodes)}
        streams = [asyncio.create_task(stream(*item)) for item in offsets_s.items() for _ in range(STREAMS)]
        try:
            yield
        finally:
            for one in streams:
                one.cancel()
            await asyncio.gather(*streams, return_exceptions=True)


async def _ask(session: aiohttp.ClientSession, node: str, model: str, number: int) -> None:
    request = Request(f"foreign-{number}", model, 0.0, PROMPT_TOKENS, OUTPUT_TOKENS, 4 * PROMPT_TOKENS, 60.0)
    body = {"model": model, "messages": [{"role": "user", "content": write_prompt(request)}], "stream": True}
    with suppress(aiohttp.ClientError):
        async with session.post(f"/nodes/{node}/v1/chat/completions", json=body) as answer:
            await answer.read()


def _judge(tasks: Sequence[Object], energies_j: Mapping[str, float], foreign: int) -> Outcome:
    """Compare what was predicted when each task was placed with what it took; only those that succeeded."""
    ended = {one["metadata"]["name"]: one["status"] for one in tasks if one["status"]["phase"] == "Succeeded"}
    times = [(one["decision"].get("predictedLatency"), one["observed"].get("latency")) for one in ended.values()]
    energies = [(one["decision"].get("predictedEnergy"), energies_j.get(name)) for name, one in ended.items()]
    hits = sum(one.get("deadlineMet") is True for one in ended.values())
    return Outcome(_judge_known(times), _judge_known(energies), hits / len(tasks), foreign)


def _judge_known(pairs: Iterable[tuple[float | None, float | None]]) -> EnergyErrors:
    return judge_energies([(said, was) for said, was in pairs if said is not None and was])


def _describe(kind: str, outcome: Outcome) -> list[Row]:
    detail = f"{outcome.hit_share:.1%} in time; {outcome.foreign} foreign requests"
    return [
        _to_row(f"error of predicted time, foreign traffic {kind}", outcome.latency, detail),
        _to_row(f"error of predicted energy, foreign traffic {kind}", outcome.energy),
    ]


def _to_row(what: str, errors: EnergyErrors, more: str = "") -> Row:
    detail = f"p90 {100 * errors.p90:.0f} %, bias {100 * errors.bias:+.0f} %, {errors.compared} tasks"
    return Row(what, [100 * errors.median], "%", "", f"{detail}; {more}" if more else detail)
