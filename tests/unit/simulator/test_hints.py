"""Better information never hurts: the same requests, with better and worse hints, in the paper's fleet at load 1.

Runs are short, so shares in time scatter by two points.
"""

from dataclasses import replace
from functools import cache

import pytest
from numpy.random import default_rng

from perllm_lab.policies import build_scheduler
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.result import Fate
from perllm_lab.simulator.simulation import simulate
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

TASKS, LOAD, SEED = 600, 1.0, 900
NOISE = 0.02

HINTS = {"none": None, "off by 1": 1.0, "off by 0.5": 0.5, "off by 0.05": 0.05}


def make_wrong(requests: list[Request]) -> list[Request]:
    """Return the requests with hints that are four times the truth for every other one."""
    return [
        replace(request, hint_tokens=request.output_tokens * (4 if number % 2 else 1))
        for number, request in enumerate(requests)
    ]


@cache
def share_in_time(hints: str) -> float:
    scenario, settings = load_scenario("paper"), SimulationSettings()
    demand = scenario.workload.model_copy(update={"hint_log_error": HINTS.get(hints)})
    scenario = scenario.model_copy(update={"workload": demand})
    requests = draw_requests(scenario, "synthetic:short", TASKS, LOAD, SEED)
    if hints == "wrong by 4":
        requests = make_wrong(requests)
    scheduler = build_scheduler("cs-ucb", BuildContext(scenario, default_rng(SEED), settings))
    fleet = FleetPlan(scenario.name, tuple(scenario.nodes()), load=LOAD, seed=SEED)
    fates = simulate(fleet, requests, scheduler, settings).tasks.fate
    return float((fates[TASKS // 5 :] == Fate.IN_TIME).mean())


@pytest.mark.parametrize(
    ("worse", "better"),
    [("none", "off by 1"), ("off by 1", "off by 0.5"), ("off by 0.5", "off by 0.05"), ("none", "wrong by 4")],
)
def test_better_information_never_hurts(worse: str, better: str) -> None:
    assert share_in_time(better) >= share_in_time(worse) - NOISE


def test_without_hints_no_node_is_forsaken() -> None:
    assert share_in_time("none") > 0.55
