import numpy as np
import pytest

from perllm_lab.hardware.events import ChangeKind, NodeChange
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.result import Fate
from perllm_lab.simulator.scheduler import QueueRules, StationOrder
from perllm_lab.simulator.simulation import simulate
from unit.simulator.schedulers import RoundRobin
from unit.simulator.small_fleet import BUSY_J_PER_TOKEN, IDLE_W, TOKEN_S, fleet, node, request, requests

EVERYTHING = SimulationSettings(warmup_share=0.0)
BUSY_W = BUSY_J_PER_TOKEN / TOKEN_S


def test_a_node_draws_the_energy_of_its_tasks_and_its_idle_power_in_between() -> None:
    result = simulate(fleet(), requests((1.0, 2.0), (5.0, 1.0), (11.0, 1.0)), RoundRobin(), EVERYTHING)
    assert result.window_s == (1.0, 11.0)
    assert result.node_idle_j.tolist() == pytest.approx([7.0 * IDLE_W])
    assert result.node_energy_j.tolist() == pytest.approx([7.0 * IDLE_W + 3.0 * BUSY_W])
    assert result.tasks.energy_j.tolist() == pytest.approx([2.0 * BUSY_W, BUSY_W, BUSY_W])


def test_the_window_begins_after_the_warm_up_and_counts_only_what_is_drawn_in_it() -> None:
    asked = requests(*[(float(at), 1.0) for at in range(0, 20, 2)])
    result = simulate(fleet(), asked, RoundRobin(), SimulationSettings(warmup_share=0.25))
    assert result.window_s == (4.0, 18.0)
    assert result.node_energy_j.tolist() == pytest.approx([7.0 * BUSY_W + 7.0 * IDLE_W])


def test_a_node_that_is_not_there_draws_nothing() -> None:
    two = fleet(node("a-0"), node("b-0"))
    changes = (NodeChange(2.0, "b-0", ChangeKind.LOSS), NodeChange(8.0, "b-0", ChangeKind.RETURN))
    nothing_to_do = requests((0.0, 0.001), (10.0, 0.001))
    result = simulate(FleetPlan("test", two.nodes, changes), nothing_to_do, RoundRobin(), EVERYTHING)
    assert result.node_energy_j.tolist() == pytest.approx([10.0 * IDLE_W, 4.0 * IDLE_W], rel=0.01)


def test_moving_a_task_costs_energy_by_the_tier_it_is_moved_to() -> None:
    asked = [request(0.0, 1.0, input_bytes=1_000_000)] * 2
    result = simulate(fleet(node("a-0"), node("b-0", tier="cloud")), asked, RoundRobin())
    assert result.tasks.transmission_j.tolist() == pytest.approx([8e6 * 0.3e-6, 8e6 * 1e-6])


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("order", StationOrder)
def test_no_task_is_lost_in_overload_with_failing_nodes(drops: bool, ends: bool, order: StationOrder) -> None:
    rng = np.random.default_rng(7)
    arrivals_s, seconds = np.cumsum(rng.exponential(0.3, 400)), rng.exponential(1.0, 400)
    asked = requests(*zip(arrivals_s, seconds, rng.uniform(0.5, 6.0, 400), strict=True))
    changes = tuple(
        NodeChange(at_s, name, kind)
        for name, offset_s in (("a-0", 5.0), ("b-0", 11.0))
        for step in range(8)
        for at_s, kind in ((offset_s + 12 * step, ChangeKind.LOSS), (offset_s + 12 * step + 4, ChangeKind.RETURN))
    )
    nodes = (node("a-0"), node("b-0"), node("c-0"))
    scheduler = RoundRobin(QueueRules(order, drops, ends))
    tasks = simulate(FleetPlan("test", nodes, changes), asked, scheduler).tasks
    counts = np.bincount(tasks.fate, minlength=len(Fate))
    assert counts.sum() == len(asked)
    assert counts[Fate.IN_TIME] > 0
    assert (counts[Fate.DROPPED] > 0) == drops
    assert (counts[Fate.ENDED] > 0) == ends
    assert tasks.runs.max() > 1
    in_time = tasks.fate == Fate.IN_TIME
    assert np.all(tasks.finished_s[in_time] <= tasks.at_s[in_time] + tasks.deadline_s[in_time])
    held = [number for _, number in scheduler.notified_of("submit")]
    given_back = [number for _, number in scheduler.notified_of("release")]
    unfinished = np.flatnonzero(tasks.fate == Fate.UNFINISHED).tolist()
    assert sorted([*given_back, *unfinished]) == sorted(held)
