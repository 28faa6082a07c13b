"""Every policy by name, in a small fleet to which everything happens: loss, return, drift, a late node."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm_lab.hardware.demand import WorkloadSettings
from perllm_lab.hardware.events import ChangeKind, FleetEvent
from perllm_lab.hardware.scenario import NodeGroup, Scenario
from perllm_lab.policies import (
    ABLATIONS,
    HINDSIGHT,
    UnknownPolicyError,
    baseline_names,
    build_scheduler,
    policy_names,
    select_policies,
)
from perllm_lab.simulator.experiment import Experiment, RunSpec, run_job
from perllm_lab.simulator.pool import run_parallel
from perllm_lab.simulator.result import Fate, RunResult

TASKS = 80
NOWHERE = -1
KINDS = ("h100-8b", "a10-8b", "rtx-4090-8b", "t4-8b", "jetson-agx-orin-8b")
"""No two nodes alike, so that there are no ties."""


def fleet_of(kinds: Sequence[str], events: tuple[FleetEvent, ...] = (), late: str | None = None) -> Scenario:
    groups = tuple(
        NodeGroup(
            name=kind.split("-")[0],
            count=1,
            tier="cloud" if kind == KINDS[0] else "edge",
            gpu=kind,
            uplink_mbps=100 + 10 * KINDS.index(kind),
            rtt_ms=5,
            joins_at=0.4 if kind == late else 0.0,
        )
        for kind in kinds
    )
    demand = WorkloadSettings(slack=(0.6, 2.0))
    return Scenario(name="small", groups=groups, resident=True, events=events, workload=demand)


EVENTFUL = fleet_of(
    KINDS,
    events=(
        FleetEvent(kind="loss", at=0.3, until=0.6, nodes=("rtx-0", "h100-0")),
        FleetEvent(kind="bandwidth", at=0.2, groups=("a10",), factor=0.1),
        FleetEvent(kind="speed", at=0.5, groups=("h100",), factor=0.5),
    ),
    late="t4-8b",
)


def experiment(scenario: Scenario, *policies: str) -> Experiment:
    return Experiment(
        scenario, "synthetic:conversation", TASKS, policies, (0.9,), (0,), build_scheduler, hindsight=dict(HINDSIGHT)
    )


@cache
def run(name: str) -> RunResult:
    return run_in(EVENTFUL, name)


@cache
def run_in_order(kinds: tuple[str, ...]) -> RunResult:
    return run_in(fleet_of(kinds), "cs-ucb")


def run_in(scenario: Scenario, name: str) -> RunResult:
    return run_job(experiment(scenario), RunSpec(name, 0.9, 0))


@pytest.mark.parametrize("name", [*policy_names(), *ABLATIONS])
def test_every_policy_ends_every_task_and_sends_none_where_it_cannot_run(name: str) -> None:
    result = run(name)
    tasks, there = result.tasks, np.isfinite(result.tasks.decided_s)
    assert len(tasks.fate) == TASKS
    assert not np.isin(tasks.fate[~there], [Fate.IN_TIME, Fate.LATE, Fate.ENDED]).any()
    assert (tasks.node[there] != NOWHERE).all()
    assert (tasks.decided_s[there] >= tasks.at_s[there]).all()
    assert np.isin(tasks.fate, [Fate.IN_TIME, Fate.LATE]).any()
    for change in EVENTFUL.changes(float(tasks.at_s[-1])):
        if change.kind is ChangeKind.JOIN:
            early = there & (tasks.decided_s < change.at_s)
            assert result.nodes.index(change.node) not in tasks.node[early], "sent to a node that was not there yet"


@pytest.mark.parametrize("name", ["cs-ucb", "clairvoyant", "cs-ucb-table+x", "least-allocated"])
def test_who_holds_tasks_back_sends_none_to_a_node_without_room(name: str) -> None:
    tasks = run(name).tasks
    bound = np.isfinite(tasks.bound_s)
    assert tasks.bound_s[bound].tolist() == tasks.decided_s[bound].tolist()


@pytest.mark.parametrize("name", baseline_names())
def test_a_plain_baseline_drops_ends_and_rejects_nothing(name: str) -> None:
    assert set(run(name).tasks.fate) <= {Fate.IN_TIME, Fate.LATE, Fate.UNFINISHED}


@settings(max_examples=6, deadline=None)
@given(st.permutations(KINDS))
def test_the_order_of_the_nodes_does_not_matter_to_cs_ucb(kinds: list[str]) -> None:
    one, other = run_in_order(KINDS), run_in_order(tuple(kinds))
    assert one.tasks.fate.tolist() == other.tasks.fate.tolist()
    assert _places(one) == _places(other)


def test_runs_are_the_same_in_another_process() -> None:
    names = ("cs-ucb", "agod+x")
    asked = experiment(EVENTFUL, *names)
    for name, found in zip(names, run_parallel(run_job, asked, asked.jobs(), 1), strict=True):
        here = run(name)
        for field in fields(here.tasks):
            if field.name != "forecast":
                assert np.array_equal(getattr(found.tasks, field.name), getattr(here.tasks, field.name), equal_nan=True)
        assert np.array_equal(found.node_energy_j, here.node_energy_j)


def test_all_are_ours_the_clairvoyant_and_every_baseline_in_every_deployment_mode() -> None:
    names = select_policies("all")
    assert names == policy_names()
    assert len(set(names)) == len(names) == 2 + 3 * len(baseline_names())
    assert {"cs-ucb", "clairvoyant", "cs-ucb-table", "cs-ucb-table+d", "agod", "fineinfer+x"} <= set(names)


def test_policies_are_run_once_in_the_order_in_which_they_are_named() -> None:
    assert select_policies("random, cs-ucb-no-harm,random") == ("random", "cs-ucb-no-harm")


def test_the_former_name_of_our_policy_is_accepted() -> None:
    assert select_policies("net-hits,net-hits-no-rent,cs-ucb") == ("cs-ucb", "cs-ucb-no-rent")


@pytest.mark.parametrize("text", ["", ",", "nobody", "cs-ucb+x", "clairvoyant+x", "random+y"])
def test_a_policy_that_does_not_exist_is_an_error_that_names_those_that_do(text: str) -> None:
    with pytest.raises(UnknownPolicyError, match="known: cs-ucb, cs-ucb-table"):
        select_policies(text)


def _places(result: RunResult) -> list[str]:
    return ["" if position == NOWHERE else result.nodes[position] for position in result.tasks.node]
