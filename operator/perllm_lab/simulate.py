"""The command `perllm-lab simulate`: runs an experiment and writes its results."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from textwrap import fill

from numpy.random import default_rng

from perllm.api.task_status import RunsAs
from perllm_lab.campaign.files import check_writable, write_atomically
from perllm_lab.campaign.runs import find_digests
from perllm_lab.hardware.events import ChangeKind
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.policies import HINDSIGHT, UnknownPolicyError, build_scheduler, select_policies
from perllm_lab.report.claim_section import has_claim
from perllm_lab.report.conclusion import conclude
from perllm_lab.report.digest import RunDigest
from perllm_lab.report.document import build_document
from perllm_lab.report.headline import LEGEND, headline_table
from perllm_lab.report.loads import FLEET
from perllm_lab.report.numbers import exact
from perllm_lab.report.origin import Origin
from perllm_lab.report.progress import Display
from perllm_lab.simulator.capacity_limit import limit_capacity
from perllm_lab.simulator.experiment import Experiment, RunSpec
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.pool import run_parallel
from perllm_lab.simulator.simulation import GRACE_DEADLINES, judged_window_s
from perllm_lab.simulator.workload import draw_arrivals, draw_requests
from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.capacity import capacity_per_s
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.sources import SYNTHETIC, load_arrivals
from perllm_lab.workload.trace import TraceError

SYNTHETIC_TASKS = 4000
NO_HINTS = "none"
RESULTS = "results.json"
OPTIONS = {"loads": "--load", "runs_as": "--work", "pod_start_s": "--pod-start", "scrape_s": "--scrape"}
"""Names of options that are not those of their settings."""

REPRODUCED = frozenset(
    {"scenario", "policies", "trace", "seeds", "seed_base", "loads", "tasks", "hints", "inventory", "pod_start_s"}
    | {"resident", "scrape_s", "runs_as", "subject"}
)
"""Settings that results depend on."""

PAGE = "report.html"
WIDTH = 80


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
        cache: folder in which runs are kept and found again; None for neither.
        subject: the policy that is compared with all others; None for the best one.
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
    runs_as: RunsAs = RunsAs.REQUEST
    cache: Path | None = None
    subject: str | None = None
    json: Path | None = None
    processes: int = 1

    @property
    def results(self) -> Path:
        """File for the results as JSON."""
        return self.json or self.out / RESULTS

    @property
    def page(self) -> Path:
        """File for the report."""
        return self.out / PAGE

    def check_targets(self) -> None:
        """Raises OSError if the results could not be written, which is better known before the runs."""
        for target in (self.results, self.page):
            check_writable(target)

    @property
    def command(self) -> str:
        """The command line that asks for the same runs; what has its default is left out."""
        words = ["perllm-lab", "simulate"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in REPRODUCED and value != field.default:
                words += _as_option(field.name, value)
        return shlex.join([*words, "--out", str(self.out)])


def run_simulation(settings: SimulateSettings, display: Display, *, today: date) -> None:
    """Runs the experiment, writes its results as JSON and as a page, and shows the headline figures."""
    experiment = make_experiment(settings)
    _check_subject(settings.subject, experiment.policies)
    settings.check_targets()
    scenario = experiment.scenario
    display.say(
        f"{len(scenario.nodes())} nodes ({scenario.name}), {experiment.trace}, {len(experiment.policies)} policies, "
        f"{len(experiment.loads)} loads, {len(experiment.seeds)} seeds: {len(experiment.jobs())} runs"
    )
    runs = find_digests(experiment, settings.cache, settings.processes, display)
    publish(experiment, runs, settings, display, origin=Origin.of(settings.command, today))


def publish(
    experiment: Experiment, runs: Sequence[RunDigest], settings: SimulateSettings, display: Display, *, origin: Origin
) -> None:
    """Writes the results of runs as JSON and as a page, and shows the headline figures and the verdict."""
    # Charts take half a second to import, which the worker processes and the other commands can do without.
    from perllm_lab.report.page import render_page

    limits = find_limits(experiment, settings.processes) if has_claim(run.policy for run in runs) else {}
    document = build_document(runs, describe(experiment, settings), capacity=find_capacity(experiment), limits=limits)
    write_atomically(settings.results, json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_atomically(settings.page, render_page(document, origin))
    display.console.print(headline_table(document))
    display.say(LEGEND)
    for heading, sentences in conclude(document).items():
        display.say("\n" + fill(heading, WIDTH))
        for sentence in sentences:
            display.say(fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="    "))
    display.say(f"\nresults: {settings.results}    report: {settings.page}")


def make_experiment(settings: SimulateSettings) -> Experiment:
    """Returns the experiment that the settings ask for, once everything they name is known to exist.

    Raises:
        ScenarioError, TraceError, UnknownPolicyError: something does not exist or is wrong.
    """
    scenario = _adapt(load_scenario(settings.scenario, inventory=settings.inventory), settings)
    trace = settings.trace or f"{SYNTHETIC}{scenario.workload.arrivals}"
    tasks = settings.tasks or (SYNTHETIC_TASKS if trace.startswith(SYNTHETIC) else None)
    _check_span(trace, load_arrivals(trace, tasks, default_rng(0)))
    return Experiment(
        scenario=scenario,
        trace=trace,
        tasks=tasks,
        policies=select_policies(settings.policies),
        loads=tuple(dict.fromkeys(settings.loads)),
        seeds=tuple(range(settings.seed_base, settings.seed_base + settings.seeds)),
        build=build_scheduler,
        hindsight=dict(HINDSIGHT),
        settings=SimulationSettings(scrape_s=settings.scrape_s, runs_as=settings.runs_as),
    )


def find_capacity(experiment: Experiment) -> dict[str, float]:
    """Returns the capacity, tasks per second, of the fleet and of each tier; that of the first seed's lengths."""
    nodes = experiment.scenario.nodes()
    arrivals = draw_arrivals(
        experiment.scenario, experiment.trace, experiment.tasks, experiment.loads[0], experiment.seeds[0]
    )
    tiers = {tier: [node for node in nodes if node.tier == tier] for tier in sorted({node.tier for node in nodes})}
    return {name: capacity_per_s(members, arrivals) for name, members in {FLEET: nodes, **tiers}.items()}


def find_limits(experiment: Experiment, processes: int) -> dict[tuple[float, int], dict[str, float]]:
    """Returns what capacity allows at most in each run, as figures of the judged tasks, by load and seed."""
    cells = [RunSpec("capacity", load, seed) for load in experiment.loads for seed in experiment.seeds]
    found = run_parallel(find_limit, experiment, cells, processes)
    return {(cell.load, cell.seed): limit for cell, limit in zip(cells, found, strict=True)}


def find_limit(experiment: Experiment, job: RunSpec) -> dict[str, float]:
    """Returns the largest share of tasks in time and the most tokens per second of a run under any policy."""
    scenario, settings = experiment.scenario, experiment.settings
    requests = draw_requests(scenario, experiment.trace, experiment.tasks, job.load, job.seed)
    begin_s, end_s = judged_window_s(requests, settings.warmup_share)
    judged = [request for request in requests if request.at_s >= begin_s]
    changes = scenario.changes(end_s)
    best_speed, best_bandwidth = (
        max([1.0, *(change.factor for change in changes if change.kind is kind)])
        for kind in (ChangeKind.SPEED, ChangeKind.BANDWIDTH)
    )
    # A run goes on for so long after the last arrival.
    until_s = end_s + GRACE_DEADLINES * max(request.deadline_s for request in requests)
    if settings.runs_as is RunsAs.REQUEST:
        scenario = scenario.model_copy(update={"pod_start_s": 0.0})
    limit = limit_capacity(
        scenario.nodes(), judged, until_s - begin_s, best_speed=best_speed, best_bandwidth=best_bandwidth
    )
    return {
        "hit_share": min(limit.tasks_in_time / len(judged), 1.0),
        "tokens_per_s": limit.output_tokens / (end_s - begin_s),
    }


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
        "subject": settings.subject,
        "events": [event.model_dump(mode="json") for event in scenario.events],
        "pod_start_s": scenario.pod_start_s,
        "resident": scenario.resident,
        **asdict(experiment.settings),
    }


def _check_subject(subject: str | None, policies: Sequence[str]) -> None:
    """Raises UnknownPolicyError if the policy that is to be compared with the others is not run."""
    if subject is not None and subject not in policies:
        raise UnknownPolicyError(f"--subject {subject} is not one of the policies: {', '.join(policies)}")


def _check_span(trace: str, arrivals: Sequence[Arrival]) -> None:
    """Raises TraceError if requests that come after the warm-up all come at once: figures are per second."""
    begin_s, end_s = judged_window_s(arrivals, SimulationSettings().warmup_share)
    if begin_s == end_s:
        raise TraceError(f"{trace}: all requests after the first fifth come at the same time; name a longer trace")


def _as_option(name: str, value: object) -> list[str]:
    """Returns a setting as words of a command line."""
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if isinstance(value, bool):
        return ["--resident" if value else "--model-load"]
    if isinstance(value, tuple):
        return [option, ",".join(map(exact, value))]
    return [option, f"{value}s" if isinstance(value, RunsAs) else str(value)]


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
