"""A trace on the real control plane by three schedulers, against what the simulator predicts and against each other.

Each scheduler finds nodes with no model loaded, and an operator that has learned nothing. The simulator
takes from the run how long this control plane needs from sending a request to the start of its container (two medians:
until the decision that binds it, and from there); everything else is the lab's scenario.
Energy per task is the ground truth of all runs, ended ones too, and of moving inputs, per task in time.
"""

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import nan
from statistics import median
from typing import Any

import pytest
import pytest_asyncio
import yaml

from e2e.requests import trace_requests
from e2e.stage import Stage, open_stage, wait_until
from perllm.api import names
from perllm.cluster.times import parse_time_s
from perllm.placement.decision import read_record
from perllm_lab.baselines.tuned import find_parameters, load_tuned
from perllm_lab.demo import find_lab_shortage
from perllm_lab.lab import Lab
from perllm_lab.lab_forecast import Figures, LabConditions, forecast, observe
from perllm_lab.policies import EXTENDED, build_scheduler
from perllm_lab.report.results import join_runs
from perllm_lab.trace_replay import FINAL_PHASES, SubmissionKind, TraceReplay, as_pods, as_tasks
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

SCENARIO = load_scenario("modern")
TASKS = 200
SEEDS = 5
TOLERANCE = 0.10
HIT_MARGIN = 0.02
TAIL_TIMEOUT_S = 120.0
REPEATS = 2
"""Of all trials together: of those that would show a starved machine rather than the scheduler."""

OURS, PAPER, PLAIN = "cs-ucb", "cs-ucb-table", "kube-scheduler"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one scheduler's replay.

    Attributes:
        figures: of all requests.
        start_s: real seconds from sending a request to the start of its container; nan where nothing was decided.
    """

    figures: Figures
    start_s: float


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return trace_requests(SCENARIO, synthetic=TASKS, limit=TASKS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trials(lab: Lab, requests: list[Request]) -> dict[str, Trial]:
    """Replay by every scheduler, one after the other; cs-ucb-table with the parameters tuned in the simulator."""
    tuned = dict(find_parameters(load_tuned(), f"{PAPER}{EXTENDED}", SCENARIO.name))
    configurations = {OURS: {"name": OURS}, PAPER: {"name": PAPER, "cs_ucb_table": tuned}, PLAIN: {}}
    found: dict[str, Trial] = {}
    speed, repeats = lab.settings.speed, iter(range(REPEATS))
    for name, policy in configurations.items():
        # The policies are compared, so each decides by itself what it rejects.
        config = {"policy": policy, "admission": {"min_hit_chance": 0.0}}
        for number in itertools.count():
            await start_over(lab, config)
            async with open_stage(lab, f"trial-{name}-{number}") as stage:
                kind = as_pods(stage.namespace) if name == PLAIN else as_tasks(stage.namespace, speed, strict=True)
                found[name], shortage = await replay_all(stage, kind, requests)
                await stage.clear()
            if shortage is None or next(repeats, None) is None:
                break
            print(f"{name} is repeated: {shortage}")
        print(f"{name:15} {found[name].figures}")
    return found


async def start_over(lab: Lab, config: Mapping[str, Any]) -> None:
    """Restart the nodes, Prometheus and the operator without what they know of earlier tests."""
    await lab.operator.stop()
    await lab.prometheus.stop()
    shutil.rmtree(lab.folder / "prometheus" / "data")
    await lab.client.delete(names.node_profiles_path())
    await lab.restart_nodes()
    await lab.prometheus.start()
    before = yaml.safe_load(lab.operator_config.read_text())
    lab.operator_config.write_text(yaml.safe_dump({**before, **config}))
    await lab.start_operator()


async def replay_all(stage: Stage, kind: SubmissionKind, requests: list[Request]) -> tuple[Trial, str | None]:
    """Replay the requests; return the outcome, and why that would show the machine rather than the scheduler."""
    speed = stage.lab.settings.speed
    replay = TraceReplay(stage.lab.client, kind, requests, speed)
    await replay.run(timeout_s=TAIL_TIMEOUT_S)

    async def is_quiet() -> bool:
        return all(pod["status"].get("phase") in FINAL_PHASES for pod in (await stage.pods()).values())

    await wait_until(is_quiet, timeout_s=TAIL_TIMEOUT_S, describe=lambda: "pods of ended tasks still run")
    truth = stage.truth()
    runs = join_runs(requests, replay.created_s, truth, speed)
    shortage = await find_lab_shortage(stage.lab, replay)
    return Trial(observe(runs, truth), measure_start_s(stage, replay.created_s)), shortage


def measure_start_s(stage: Stage, sent_s: Mapping[str, float]) -> float:
    """Return the median from sending a request to the decision that bound it, plus the one from there to its container.

    Two medians, because the policy may delay a decision to wait for a better node.
    """
    starts_s = ((line["pod"], parse_time_s(line["started"])) for line in stage.truth())
    started_s = {pod: start_s for pod, start_s in starts_s if start_s is not None}
    until_decided_s, until_started_s = [], []
    for states in stage.seen.values():
        metadata = states[-1]["metadata"]
        record = metadata["annotations"].get(names.DECISION_ANNOTATION)
        if record and metadata["name"] in started_s:
            decided_s = read_record(record).decided_s
            until_decided_s.append(decided_s - sent_s[metadata["labels"][names.TASK_LABEL]])
            until_started_s.append(started_s[metadata["name"]] - decided_s)
    return median(until_decided_s) + median(until_started_s) if until_decided_s else nan


@pytest.fixture(scope="module")
def predicted(lab: Lab, trials: dict[str, Trial], requests: list[Request]) -> Figures:
    """What the simulator predicts for cs-ucb with the same requests and nodes."""
    conditions = LabConditions(lab.settings.speed, trials[OURS].start_s, lab.settings.scrape_interval_s)
    figures = forecast(partial(build_scheduler, OURS), SCENARIO, requests, conditions, seeds=SEEDS)
    print(f"{'predicted':15} {figures}, with containers {conditions.start_s:.2f} s after their requests")
    return figures


async def test_the_hit_rate_is_as_predicted(trials: dict[str, Trial], predicted: Figures) -> None:
    assert trials[OURS].figures.hit_share == pytest.approx(predicted.hit_share, rel=TOLERANCE)


async def test_the_energy_per_task_is_as_predicted(trials: dict[str, Trial], predicted: Figures) -> None:
    assert trials[OURS].figures.energy_j == pytest.approx(predicted.energy_j, rel=TOLERANCE)


@pytest.mark.parametrize("baseline", [PAPER, PLAIN])
async def test_cs_ucb_is_better_than(trials: dict[str, Trial], baseline: str) -> None:
    """Not more than two points of hit rate below the baseline, and less energy per task in time."""
    ours, theirs = trials[OURS].figures, trials[baseline].figures
    assert ours.hit_share >= theirs.hit_share - HIT_MARGIN
    assert ours.energy_j < theirs.energy_j
