"""The command `perllm-lab simulate`: runs an experiment and writes its results."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from numpy.random import default_rng

from perllm.api.task_status import RunsAs
from perllm_lab.hardware.events import ChangeKind
from perllm_lab.hardware.link import VARIATION
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.policies import build_scheduler, select_policies
from perllm_lab.report.document import build_document
from perllm_lab.report.headline import LEGEND, headline_table
from perllm_lab.report.progress import Display
from perllm_lab.simulator.experiment import Experiment, RunSpec, run_experiment
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.pool import run_parallel
from perllm_lab.simulator.simulation import judged_window_s
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC, load_arrivals

SYNTHETIC_TASKS = 4000
NO_HINTS = "none"
RESULTS = "results.json"
PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class SimulateSettings:
    """Options of `perllm-lab simulate`.

    Attributes:
        scenario: scenario of the lab, or a YAML file.
        policies: their names with commas between them, or "all".
        out: folder for the results.
        trace: a trace file or `synthetic:NAME`; None for what the scenario names.
        seeds: how many runs of each policy and load.
        seed_base: the first seed.
        loads: offered work as shares of the capacity.
        tasks: how many; None for 4,000 synthetic ones, or all tasks of a file.
        hints: "none", or the error of the hints; None for what the scenario says.
        inventory: list of machines that become the nodes.
        pod_start_s: from binding to the start of a container; None for what the scenario says.
        resident: whether models are loaded from the start; None for what the scenario says, with served tasks for yes.
        scrape_s: seconds between two readings of the nodes.
        runs_as: whether all tasks are pod tasks, or served tasks.
        json: file for the results as JSON; None for one in `out`.
        processes: how many runs at once.
    """

    scenario: str
    policies: str
    out: Path
    trace: str | None = None
    seeds: int = 5
    seed_base: int = 0
    loads: tuple[float, ...] = (0.9,)
    tasks: int | None = None
    hints: float | str | None = None
    inventory: Path | None = None
    pod_start_s: float | None = None
    resident: bool | None = None
    scrape_s: float = 5.0
    runs_as: RunsAs = RunsAs.POD
    json: Path | None = None
    processes: int = 1


def run_simulation(settings: SimulateSettings, display: Display) -> None:
    """Runs the experiment, writes its results as JSON and as a page, and shows the headline figures."""
    experiment = make_experiment(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    scenario = experiment.scenario
    display.say(
        f"{len(scenario.nodes())} nodes ({scenario.name}), {experiment.trace}, {len(experiment.policies)} policies, "
        f"{len(experiment.loads)} loads, {len(experiment.seeds)} seeds: {len(experiment.jobs())} runs"
    )
    with display.stage("bounds") as stage:
        cells = [RunSpec("upper bound", load, seed) for load in experiment.loads for seed in experiment.seeds]
        found = run_parallel(compute_bound, experiment, cells, settings.processes, stage.update)
    bounds = {(cell.load, cell.seed): value for cell, value in zip(cells, found, strict=True)}
    with display.stage("runs") as stage:
        results = run_experiment(experiment, settings.processes, stage.update)
    # Charts take half a second to import, which the worker processes and the other commands can do without.
    from perllm_lab.report.page import render_page

    document = build_document(results, describe(experiment, settings), bounds=bounds)
    target = settings.json or settings.out / RESULTS
    write_atomically(target, json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_atomically(settings.out / PAGE, render_page(document))
    display.console.print(headline_table(document))
    display.say(LEGEND)
    display.say(f"\nresults: {target}    report: {settings.out / PAGE}")


def make_experiment(settings: SimulateSettings) -> Experiment:
    """Returns the experiment that the settings ask for, once everything they name is known to exist.

    Raises:
        ScenarioError, TraceError, UnknownPolicyError: something does not exist or is wrong.
    """
    scenario = _adapt(load_scenario(settings.scenario, inventory=settings.inventory), settings)
    trace = settings.trace or f"{SYNTHETIC}{scenario.workload.arrivals}"
    tasks = settings.tasks or (SYNTHETIC_TASKS if trace.startswith(SYNTHETIC) else None)
    load_arrivals(trace, tasks, default_rng(0))
    return Experiment(
        scenario=scenario,
        trace=trace,
        tasks=tasks,
        policies=select_policies(settings.policies),
        loads=tuple(dict.fromkeys(settings.loads)),
        seeds=tuple(range(settings.seed_base, settings.seed_base + settings.seeds)),
        build=build_scheduler,
        settings=SimulationSettings(scrape_s=settings.scrape_s, runs_as=settings.runs_as),
    )


def compute_bound(experiment: Experiment, job: RunSpec) -> float:
    """Returns an upper bound on the goodput of the judged tasks of a run under any policy."""
    # Its solver takes long to import and no other command needs it.
    from perllm_lab.simulator.bound import Conditions, goodput_bound

    scenario = experiment.scenario
    requests = draw_requests(scenario, experiment.trace, experiment.tasks, job.load, job.seed)
    begin_s, end_s = judged_window_s(requests, experiment.settings.warmup_share)
    judged = [request for request in requests if request.at_s >= begin_s]
    changes = scenario.changes(requests[-1].at_s)
    best = {
        kind: max([1.0, *(change.factor for change in changes if change.kind is kind)])
        for kind in (ChangeKind.BANDWIDTH, ChangeKind.SPEED)
    }
    conditions = Conditions(bandwidth=(1.0 + VARIATION) * best[ChangeKind.BANDWIDTH], speed=best[ChangeKind.SPEED])
    if experiment.settings.runs_as is RunsAs.REQUEST:
        scenario = scenario.model_copy(update={"pod_start_s": 0.0})
    return goodput_bound(scenario.nodes(), judged, end_s - begin_s, conditions)


def describe(experiment: Experiment, settings: SimulateSettings) -> dict[str, object]:
    """Returns the setting of an experiment as JSON values, complete enough to repeat it."""
    scenario = experiment.scenario
    return {
        "scenario": settings.scenario,
        "description": scenario.description,
        "nodes": len(scenario.nodes()),
        "inventory": str(settings.inventory) if settings.inventory else None,
        "trace": experiment.trace,
        "tasks": experiment.tasks,
        "policies": list(experiment.policies),
        "workload": scenario.workload.model_dump(mode="json"),
        "events": [event.model_dump(mode="json") for event in scenario.events],
        "pod_start_s": scenario.pod_start_s,
        "resident": scenario.resident,
        **asdict(experiment.settings),
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(text)
            file.close()
            # Temporary files are readable by their owner only; results are for all who may read the folder.
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _adapt(scenario: Scenario, settings: SimulateSettings) -> Scenario:
    changed: dict[str, object] = {}
    if settings.pod_start_s is not None:
        changed["pod_start_s"] = settings.pod_start_s
    if settings.resident is not None:
        changed["resident"] = settings.resident
    elif settings.runs_as is RunsAs.REQUEST:
        # A model server has loaded its model by the time it serves it.
        changed["resident"] = True
    if settings.hints is not None:
        error = None if settings.hints == NO_HINTS else settings.hints
        changed["workload"] = scenario.workload.model_copy(update={"hint_log_error": error})
    return scenario.model_copy(update=changed)
