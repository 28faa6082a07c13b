"""The demonstration: the same tasks on the same simulated nodes, placed by policies of PerLLM and by kube-scheduler."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from perllm.api.task_status import RunsAs
from perllm.policy import contextual, table
from perllm.settings.nodes import NodeSettings
from perllm_lab.demo_forecast import SchedulerRun, find_conditions, predict
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.kubernetes.build import Progress
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS, OPERATOR_LOG, Lab, LabSettings, remove_lab
from perllm_lab.lab_forecast import observe
from perllm_lab.lateness import find_shortage, measure_lateness
from perllm_lab.policies import configure_operator
from perllm_lab.report.progress import Display, Stage
from perllm_lab.report.results import energy_errors, fleet_energy, join_runs
from perllm_lab.report.tables import compare, describe_energy
from perllm_lab.report.verdict import describe_verdict
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.trace_replay import FINAL_PHASES, SubmissionKind, TraceReplay, TraceReplayError, as_pods, as_tasks
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC

NAMESPACE = "default"
KUBE_SCHEDULER = "kube-scheduler"
OPERATOR_POLICIES = (contextual.NAME, table.NAME)
CONTENDERS = (*OPERATOR_POLICIES, KUBE_SCHEDULER)
TAIL_TIMEOUT_S = 240.0
LEGEND = (
    "in time, tokens: share of the tasks, and of their tokens, complete by their deadline. p50 s, p95 s: from creation "
    "to completion, in seconds of the simulated hardware. J/task: a task's share of its node's energy while it ran "
    "(ground truth). fleet J: energy of all nodes, idle ones too, per task in time, over the same span for all."
)
OBJECTS = "objects.json"
MEASURE_TIMEOUT_S = 60.0
LOOP_LAG = "perllm_loop_lag_seconds_bucket"
KINDS = {
    RunsAs.POD: "Every task is a pod, for all",
    RunsAs.REQUEST: "Tasks of PerLLM are requests to model servers; for kube-scheduler, which places pods only, "
    "each is a pod, which takes a second to start",
}


class SlowMachineError(Exception):
    """The machine was too slow for the demonstration; the message says what to do."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Options of `perllm-lab demo`.

    Attributes:
        scenario: scenario of the lab, or a YAML file.
        tasks: how many tasks.
        trace: trace file to replay; None for a synthetic one.
        load: offered work as a share of the nodes' capacity.
        contenders: policies of PerLLM and kube-scheduler, compared with the first.
        speed: of the hardware, as a multiple of real time.
        seed: of everything random.
        folder: where the run keeps its files.
        strict: whether PerLLM may reject tasks, and ends them at their deadline.
        runs_as: whether PerLLM gets pod tasks, or served tasks.
    """

    scenario: str
    tasks: int
    trace: Path | None
    load: float
    contenders: Sequence[str]
    speed: float
    seed: int
    folder: Path
    strict: bool = False
    runs_as: RunsAs = RunsAs.REQUEST


async def run_demo(settings: DemoSettings, display: Display) -> list[str]:
    """Run the demonstration and return the faults found; an empty list when there are none.

    Raises:
        SlowMachineError: what was measured would not mean anything.
    """
    scenario = load_scenario(settings.scenario)
    requests = make_requests(settings, scenario)
    binaries = await provide_binaries(COMPONENTS, display)
    for name in CONTENDERS:
        remove_lab(settings.folder / name)
    display.explain(
        f"{len(requests)} tasks on {len(scenario.nodes())} simulated nodes ({scenario.name}) at {settings.load:.0%} of "
        f"their capacity, {settings.speed:g} times as fast as real time. {KINDS[settings.runs_as]}."
    )
    display.say(f"Files are in {settings.folder}")
    runs, faults = {}, []
    for name in settings.contenders:
        runs[name] = await run_contender(name, settings, requests, binaries, display)
        log = settings.folder / name / OPERATOR_LOG
        faults += [] if name == KUBE_SCHEDULER else find_faults(runs[name].objects, log.read_text())
    report_results(runs, display)
    if own := {name: run for name, run in runs.items() if name != KUBE_SCHEDULER}:
        _report_predictions(own, settings, display)
        _show_files(settings.folder / next(iter(own)), display)
    return faults


async def run_contender(
    name: str, settings: DemoSettings, requests: Sequence[Request], binaries: Mapping[str, Path], display: Display
) -> SchedulerRun:
    """Replay the requests through one scheduler, in a lab of its own that has learned nothing.

    Raises:
        SlowMachineError: what was measured would not mean anything.
    """
    scenario = load_scenario(settings.scenario)
    async with Lab(binaries, scenario, settings.folder / name, _configure(name, settings)) as lab:
        return await _replay(lab, name, _submission(name, settings), requests, display)


def _configure(name: str, settings: DemoSettings) -> LabSettings:
    """Return the lab of a contender; what is not a policy is run next to an idle operator."""
    policy = {} if name == KUBE_SCHEDULER else {"policy": configure_operator(name, settings.scenario)}
    has_agents = settings.runs_as is RunsAs.REQUEST
    return LabSettings(settings.scenario, settings.speed, settings.seed, operator_config=policy, has_agents=has_agents)


def _submission(name: str, settings: DemoSettings) -> SubmissionKind:
    if name == KUBE_SCHEDULER:
        return as_pods(NAMESPACE)
    return as_tasks(NAMESPACE, settings.speed, strict=settings.strict, runs_as=settings.runs_as)


def make_requests(settings: DemoSettings, scenario: Scenario) -> list[Request]:
    """Return the requests to replay: from the trace file, or from the synthetic trace that fits the scenario."""
    trace = f"{SYNTHETIC}{scenario.workload.arrivals}" if settings.trace is None else str(settings.trace)
    return draw_requests(scenario, trace, settings.tasks, settings.load, settings.seed)


async def provide_binaries(names: Sequence[str], display: Display) -> Mapping[str, Path]:
    """Return the programs, built on first use with progress on the display."""
    with display.stage("programs") as stage:
        return await provide(
            list(names), cache_folder=default_cache_folder(), on_progress=lambda progress: _show(stage, progress)
        )


def find_faults(tasks: Sequence[Mapping[str, Any]], log: str) -> list[str]:
    """Return which tasks did not reach a final phase, and which decisions are missing in the operator's log."""
    logged = set()
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("event") == "decision":
            logged.add(entry["uid"])
    faults = []
    for task in tasks:
        name, status = task["metadata"]["name"], task.get("status") or {}
        if status.get("phase") not in FINAL_PHASES:
            faults.append(f"{name} is still {status.get('phase')}")
        if status.get("nodeName") and task["metadata"]["uid"] not in logged:
            faults.append(f"the decision for {name} is not in the log")
    return faults


async def _replay(
    lab: Lab, title: str, kind: SubmissionKind, requests: Sequence[Request], display: Display
) -> SchedulerRun:
    """Replay the requests through one scheduler.

    Raises:
        SlowMachineError: the lab could not keep up.
    """
    before, start = await read_totals(lab), lab.truth_size()
    replay = TraceReplay(lab.client, kind, requests, lab.settings.speed)
    with display.stage(f"{title:<15}") as stage:

        def show(now: TraceReplay) -> None:
            phases = ", ".join(f"{count} {phase.lower()}" for phase, count in sorted(now.phases.items()))
            stage.update(now.finished, len(requests), phases)

        try:
            await replay.run(timeout_s=TAIL_TIMEOUT_S, on_progress=show)
        except TraceReplayError as error:
            await _check_speed(lab, replay, cause=error)
            raise
    after = await read_totals(lab)
    await _check_speed(lab, replay)
    if title != KUBE_SCHEDULER:
        await replay.wait_measured(timeout_s=MEASURE_TIMEOUT_S)
    objects, truth = list(replay.objects.values()), lab.read_truth(start)
    (lab.folder / OBJECTS).write_text(json.dumps(objects), encoding="utf-8")
    idle_w = sum(node.gpu.idle_power_w for node in lab.scenario.nodes())
    runs = join_runs(requests, replay.created_s, truth, lab.settings.speed)
    return SchedulerRun(replay.created_s, runs, fleet_energy(before, after, idle_w), truth, objects)


async def _check_speed(lab: Lab, replay: TraceReplay, *, cause: Exception | None = None) -> None:
    """Raise SlowMachineError if the machine was too slow for a replay, which explains why that failed, too."""
    if shortage := await find_lab_shortage(lab, replay):
        raise SlowMachineError(shortage) from cause


async def read_totals(lab: Lab) -> dict[str, Any]:
    """Return the energy of all nodes so far."""
    totals: dict[str, Any] = await _read(lab, "truth")
    return totals


async def find_lab_shortage(lab: Lab, replay: TraceReplay) -> str | None:
    """Return why the results of a replay are not worth showing; None if they are."""
    lateness = measure_lateness(
        replay.sent_late_s,
        replay.created_in_s,
        await _read(lab, "lateness"),
        operator_late=await _read_loop_lag(lab),
    )
    return find_shortage(lateness, replay.requests, lab.settings.speed)


async def _read_loop_lag(lab: Lab) -> dict[float, float]:
    """Return how often the operator's event loop was late, by bound in seconds; nothing if it does not answer."""
    url = f"{lab.health_url}/metrics?name[]={LOOP_LAG}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            families = list(text_string_to_metric_families(await answer.text()))
    except aiohttp.ClientError:
        return {}
    return {float(one.labels["le"]): one.value for family in families for one in family.samples if one.name == LOOP_LAG}


async def _read(lab: Lab, page: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{lab.nodes_url}/{page}") as answer:
        return await answer.json()


def report_results(results: Mapping[str, SchedulerRun], display: Display) -> None:
    """Show the figures of all schedulers, and the verdict on the first of them."""
    runs = {name: one.runs for name, one in results.items()}
    fleets = {name: one.fleet for name, one in results.items()}
    display.console.print(compare(runs, fleets))
    display.explain(LEGEND)
    first, *others = results
    if others:
        display.say("")
        for sentence in describe_verdict(first, runs, fleets):
            display.explain(sentence)
        display.explain(
            "All joules are of simulated GPUs. One run, one seed: perllm-lab simulate repeats it with many."
        )


def _report_predictions(own: Mapping[str, SchedulerRun], settings: DemoSettings, display: Display) -> None:
    """Show how well PerLLM measured energy, and what the simulator predicts for each of its policies."""
    rates = {tier.value: value * 1e-6 for tier, value in NodeSettings().transmission_microjoule_per_bit.items()}
    first, scenario = next(iter(own.values())), load_scenario(settings.scenario)
    display.say("")
    display.explain(describe_energy(energy_errors(first.objects, first.truth, rates)))
    display.say("\nThe same tasks as the simulator predicts them, idle nodes left out:")
    for name, run in own.items():
        conditions = find_conditions(run, settings.speed, settings.runs_as)
        display.say(f"  {name}")
        display.say(f"    predicted  {predict(name, run, scenario, conditions, strict=settings.strict)}")
        display.say(f"    as it ran  {observe(run.runs, run.truth)}")


def _show_files(folder: Path, display: Display) -> None:
    display.say(f"\nWhere to look next, in {folder}:")
    display.say("  operator.log    every decision and why, one JSON object a line")
    display.say(f"  {OBJECTS}    the tasks with status and decision, as kubectl get -o json")
    display.say("  truth.jsonl     what really happened on the simulated nodes")
    display.say("To keep a lab running for kubectl: make lab")


def _show(stage: Stage, progress: Progress) -> None:
    stage.update(progress.done, progress.total, f"{progress.module}: {progress.stage}")
