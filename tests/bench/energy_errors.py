"""How wrong the energies of tasks are, by what measures them, how often it is scraped, and how busy the nodes are.

One lab runs all tasks, with its control plane and its agents. Three Prometheus servers scrape the same simulated nodes
at their own intervals. What each of them has, counter or power alone, is divided among the tasks by the operator's own
code, from what the statuses of the tasks say about their runs, and compared with the ground truth.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import requests
from prometheus_client import CollectorRegistry

from bench.tables import Row
from perllm.api.task_status import RunsAs
from perllm.cluster.client import Object
from perllm.controller.lifecycle import CLOSED_S
from perllm.controller.served_runs import read_run
from perllm.controller.task import read_task
from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.settings.nodes import NodeSettings
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.queries import MeterSettings, Queries
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.source import PrometheusSource
from perllm_lab.demo import find_lab_shortage
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.report.results import EnergyErrors, energy_errors, judge_energies
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.trace_replay import TraceReplay, as_tasks
from perllm_lab.workload.scenarios import load_scenario

SCENARIO, TRACE, NAMESPACE = "demo", "synthetic:conversation", "default"
LOADS = (0.4, 0.8)
TASKS = 150
INTERVALS_S = (1.0, 5.0, 15.0)
COUNTER, POWER = "counter", "power"
EXPECTED = {(COUNTER, 1.0): "<= 2", (POWER, 5.0): "<= 8"}
TIMEOUT_S, HISTORY_S, STALE_SCRAPES = 120.0, 900.0, 6
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class TrueRun:
    """What really happened: where a task ran, from when to when in Unix seconds, and its joules."""

    node: str
    start_s: float
    end_s: float
    energy_j: float


async def measure_energy(binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return the errors for every source, interval and load."""
    scenario, rows = load_scenario(SCENARIO), list[Row]()
    async with (
        Lab(binaries, scenario, folder, LabSettings(SCENARIO, has_agents=True)) as lab,
        _scrape(lab, binaries["prometheus"], folder) as urls,
    ):
        tasks = {load: await _replay(lab, load, say) for load in LOADS}
        await asyncio.sleep(max(INTERVALS_S) + 1.0)
        truth = lab.read_truth()
        runs = {line["task"]: _read_run(line) for line in truth if line.get("kind") == "request"}
        rates = {tier.value: rate * 1e-6 for tier, rate in NodeSettings().transmission_microjoule_per_bit.items()}
        for load, items in tasks.items():
            live = energy_errors(items, truth, rates)
            rows.append(_to_row("as the operator measured them, counter, 1 s", load, live))
        gpus = {node.name: float(node.gpus) for node in scenario.nodes()}
        everything = [item for items in tasks.values() for item in items]
        for kind in (COUNTER, POWER):
            for every_s, url in urls.items():
                history = await _read_history(url, kind, every_s, gpus)
                found_j = _attribute(everything, history, gpus)
                for load, items in tasks.items():
                    names = [item["metadata"]["name"] for item in items]
                    pairs = [(found_j[name], runs[name]) for name in names if name in found_j and name in runs]
                    rows.append(_judge(kind, every_s, load, pairs))
    return rows


@asynccontextmanager
async def _scrape(lab: Lab, binary: Path, folder: Path) -> AsyncIterator[dict[float, str]]:
    """Scrape the meters of all nodes at every interval; yield the URL of each Prometheus by its interval."""
    address = urlsplit(lab.nodes_url).netloc
    targets = [
        ScrapeTarget("exporters", address, f"/nodes/{node.name}/exporters", node.name) for node in lab.scenario.nodes()
    ]
    async with AsyncExitStack() as stack:
        urls = {}
        for every_s in INTERVALS_S:
            server = Prometheus(binary, folder / f"scraped-{every_s:g}", targets, scrape_interval_s=every_s)
            urls[every_s] = (await stack.enter_async_context(server)).url
        # So that the meters are known from before the first task.
        await asyncio.sleep(max(INTERVALS_S) + 1.0)
        yield urls


async def _replay(lab: Lab, load: float, say: Callable[[str], None]) -> list[Object]:
    """Run tasks, some of which end with their deadline, and return them when the operator has measured them."""
    drawn = draw_requests(lab.scenario, TRACE, TASKS, load, lab.settings.seed)
    named = [replace(one, name=f"{one.name}-at-{load:g}".replace(".", "-")) for one in drawn]
    kind = as_tasks(NAMESPACE, lab.settings.speed, strict=True, runs_as=RunsAs.REQUEST)
    replay = TraceReplay(lab.client, kind, named, lab.settings.speed)
    await replay.run(timeout_s=TIMEOUT_S)
    if shortage := await find_lab_shortage(lab, replay):
        say(f"NOT EVIDENCE: {shortage}")
    await replay.wait_measured(timeout_s=TIMEOUT_S)
    say(f"load {load:g}: {dict(replay.phases)} and before")
    return [replay.objects[one.name] for one in named]


async def _read_history(url: str, kind: str, every_s: float, nodes: Mapping[str, float]) -> EnergyHistory:
    """Return what a Prometheus has of one kind of meter."""
    queries = Queries()
    meter = (
        MeterSettings(name=kind, energy=queries.energy, energy_unit_j=queries.energy_unit_j)
        if kind == COUNTER
        else MeterSettings(name=kind, power=queries.power, power_unit_w=queries.power_unit_w)
    )
    settings = TelemetrySettings(url=url, stale_after_s=STALE_SCRAPES * every_s, history_s=HISTORY_S, meters=(meter,))
    guard = Guard(lambda _: None, Random(0))
    with closing(PrometheusSource(settings, requests.Session())) as source:
        telemetry = Telemetry(
            source,
            settings,
            lambda: dict.fromkeys(nodes, ()),
            time.time,
            TelemetryMetrics(CollectorRegistry()),
            guard=guard,
            rng=Random(0),
        )
        await telemetry.poll()
    return telemetry.energy


def _attribute(items: Sequence[Object], history: EnergyHistory, gpus: Mapping[str, float]) -> dict[str, float]:
    """Return the joules of all tasks that succeeded and can be measured, without transmission."""
    now_s = time.time()
    settlement = Settlement(
        history,
        IdlePower(),
        ForeignLoad(HISTORY_S),
        count_gpus=gpus.__getitem__,
        patience_s=0.0,
        retry_s=1.0,
        window_s=HISTORY_S,
        now=lambda: now_s,
    )
    runs = {}
    for item in items:
        task, status = read_task(item, now_s)
        run = read_run(task, status)
        if run is None or run.started_s is None:
            continue
        settlement.begin(run, task.expected_prompt_tokens, run.started_s)
        settlement.end(run, task.due_s + CLOSED_S)
        runs[task.name] = run
    found = {name: settlement.measure(run, 0.0, now_s) for name, run in runs.items() if run.is_finished}
    return {name: one.energy_j for name, one in found.items() if one is not None and one.energy_j is not None}


def _judge(kind: str, every_s: float, load: float, pairs: Sequence[tuple[float, TrueRun]]) -> Row:
    errors = judge_energies([(found_j, run.energy_j) for found_j, run in pairs])
    long = [(found_j, run.energy_j) for found_j, run in pairs if run.end_s - run.start_s >= 2.0 * every_s]
    detail = f"; {len(long)} runs of two intervals and more {_percent(judge_energies(long).median)}" if long else ""
    detail += f"; by node and minute {_percent(_judge_minutes(pairs))}"
    return _to_row(f"{kind}, {every_s:g} s", load, errors, EXPECTED.get((kind, every_s), ""), detail)


def _judge_minutes(pairs: Sequence[tuple[float, TrueRun]]) -> float:
    """Return the median error of what all tasks took that ended on one node in one minute."""
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for found_j, run in pairs:
        both = sums[run.node, int(run.end_s // MINUTE_S)]
        both[0] += found_j
        both[1] += run.energy_j
    return median(abs(found_j / true_j - 1.0) for found_j, true_j in sums.values())


def _to_row(what: str, load: float, errors: EnergyErrors, expected: str = "", detail: str = "") -> Row:
    shown = f"p90 {_percent(errors.p90)}, bias {100.0 * errors.bias:+.1f} %, {errors.compared} tasks{detail}"
    return Row(f"error of energy, {what}, load {load:g}", [100.0 * errors.median], "%", expected, shown)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"


def _read_run(line: Mapping[str, Any]) -> TrueRun:
    start, end = datetime.fromisoformat(line["created"]), datetime.fromisoformat(line["finished"])
    return TrueRun(line["node"], start.timestamp(), end.timestamp(), line["energy_j"])
