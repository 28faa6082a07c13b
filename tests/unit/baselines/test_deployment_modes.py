"""The deployment modes of a baseline, on a node with one slot."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from perllm_lab.policies import build_baseline
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.result import Fate, TaskTable
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario
from unit.simulator.small_fleet import fleet, node, requests


def run(name: str, asked: list[Request], *, resident: bool = False) -> TaskTable:
    settings = SimulationSettings()
    one = fleet(replace(node(), resident=resident))
    context = BuildContext(load_scenario("modern"), default_rng(0), settings)
    return simulate(one, asked, build_baseline(name, context, {}), settings).tasks


@pytest.mark.parametrize("name", ["least-loaded", "fastest-first"])
@pytest.mark.parametrize(("mode", "bound_s"), [("", [0.0, 2.0, 3.0]), ("+d", [0.0, 3.0, 2.0])])
def test_waiting_tasks_are_served_as_they_came_or_earliest_deadline_first(
    name: str, mode: str, bound_s: list[float]
) -> None:
    tasks = run(name + mode, requests((0.0, 2.0, 2e4), (0.5, 1.0, 2e4), (1.0, 1.0, 1e4)))
    assert tasks.bound_s.tolist() == pytest.approx(bound_s, abs=0.01)


@pytest.mark.parametrize(("name", "decided_s"), [("least-loaded+x", 0.5), ("fastest-first+x", 2.0)])
def test_who_may_choose_a_full_node_waits_there_others_wait_centrally(name: str, decided_s: float) -> None:
    tasks = run(name, requests((0.0, 2.0, 1e4), (0.5, 1.0, 1e4)))
    assert tasks.decided_s[1] == pytest.approx(decided_s, abs=0.01)


@pytest.mark.parametrize("name", ["least-loaded", "cs-ucb-table", "agod"])
@pytest.mark.parametrize(("mode", "fate"), [("", Fate.LATE), ("+d", Fate.ENDED), ("+x", Fate.REFUSED)])
def test_a_hopeless_task_runs_to_its_end_or_to_its_deadline_or_is_refused(name: str, mode: str, fate: Fate) -> None:
    assert run(name + mode, requests((0.0, 2.0, 1.2))).fate[0] == fate


@pytest.mark.parametrize("name", ["cs-ucb-table+x", "fastest-first+x"])
def test_a_baseline_that_is_told_to_reject_everything_still_probes(name: str) -> None:
    # Published figures make the node slower than any of these deadlines; it is not.
    tasks = run(name, requests(*((float(at), 0.2, 2.0) for at in range(200))), resident=True)
    assert np.isin(tasks.fate, [Fate.IN_TIME, Fate.ENDED]).sum() >= 5
    assert tasks.fate[0] == Fate.REFUSED
