from itertools import islice
from random import Random

import pytest

from e2e.chaos.plan import AGENT_NODE, PROCESSES, FaultKind, plan_faults
from perllm.api.task_status import RunsAs

NODES = ("edge-0", "cloud-0", AGENT_NODE)
OF_PODS = {
    FaultKind.WRONG_CLOCK,
    FaultKind.NODE_DELETION,
    FaultKind.DELETE_FINISHED_POD,
    FaultKind.DELETE_RUNNING_POD,
    FaultKind.FORCE_POD_DELETION,
    FaultKind.UNLABEL_POD,
}
OF_REQUESTS = {
    FaultKind.LONG_ABSENCE,
    FaultKind.ISOLATION,
    FaultKind.SERVER_CRASH,
    FaultKind.REFUSALS,
    FaultKind.DELETE_RUNNING_TASK,
}


@pytest.mark.parametrize("runs_as", RunsAs)
def test_the_same_seed_gives_the_same_faults(runs_as):
    first, second = (list(islice(plan_faults(Random(7), NODES, runs_as), 100)) for _ in range(2))
    assert first == second
    assert first != list(islice(plan_faults(Random(8), NODES, runs_as), 100))


@pytest.mark.parametrize(
    ("runs_as", "deck", "kinds"),
    [(RunsAs.POD, 33, {*FaultKind} - OF_REQUESTS), (RunsAs.REQUEST, 40, {*FaultKind} - OF_PODS)],
)
def test_every_kind_has_a_turn_on_every_process_before_any_has_a_second_one(runs_as, deck, kinds):
    faults = list(islice(plan_faults(Random(7), NODES, runs_as), deck))
    assert {fault.kind for fault in faults} == kinds
    shared = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.STOP)
    turns = [(fault.kind, fault.target) for fault in faults if fault.kind in shared]
    assert sorted(turns) == sorted((kind, process) for kind in shared for process in PROCESSES[runs_as])
