from dataclasses import replace
from functools import partial

import pytest

from perllm.api.task_status import RunsAs
from perllm_lab.lab_forecast import LabConditions, forecast
from perllm_lab.policies import build_operator
from perllm_lab.simulator.workload import draw_requests
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

PAPER = load_scenario("paper")
SLOW_START = LabConditions(speed=2.0, start_s=10.0, scrape_s=1.0)
"""Pods start later than the deadlines of `paper`, which are at most 6 s."""


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return draw_requests(PAPER, "synthetic:short", 40, load=0.3, seed=0)


def test_the_forecast_of_requests_has_no_pod_start(requests: list[Request]) -> None:
    shares = [
        forecast(partial(build_operator, "cs-ucb", strict=False), PAPER, requests, conditions, seeds=1).hit_share
        for conditions in (SLOW_START, replace(SLOW_START, start_s=0.0, runs_as=RunsAs.REQUEST))
    ]
    assert shares[0] == 0.0
    assert shares[1] > 0.8


def test_the_forecast_of_requests_counts_the_way_to_the_server(requests: list[Request]) -> None:
    slow = replace(SLOW_START, runs_as=RunsAs.REQUEST)
    shares = [
        forecast(
            partial(build_operator, "cs-ucb", strict=True), PAPER, requests, replace(slow, start_s=start_s), seeds=1
        )
        for start_s in (0.0, 3.0)
    ]
    assert shares[1].hit_share == 0.0 < shares[0].hit_share


def test_a_request_is_in_time_by_the_clock_of_who_sends_it(requests: list[Request]) -> None:
    seen_late = replace(SLOW_START, start_s=0.0, runs_as=RunsAs.REQUEST, receipt_s=3.0)
    build = partial(build_operator, "cs-ucb", strict=True)
    assert forecast(build, PAPER, requests, seen_late, seeds=1).hit_share == 0.0


def test_late_tasks_take_energy_unless_they_are_strict(requests: list[Request]) -> None:
    lenient_j, strict_j = (
        forecast(partial(build_operator, "cs-ucb", strict=strict), PAPER, requests, SLOW_START, seeds=1).energy_j
        for strict in (False, True)
    )
    assert strict_j == 0.0 < lenient_j, "strict ones are rejected"
