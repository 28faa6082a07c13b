"""Whatever fails, each served task ends, one answer of it is accepted and learned, and its slot is free afterwards.

`make chaos ARGS="--work requests"` adds what takes longer than a test may: an API server, a node or an agent that is
away for a minute.
"""

import logging
from pathlib import Path

import pytest
from rich.console import Console

from e2e.chaos.campaign import Chunk, run_chunk
from e2e.chaos.findings import ChaosFindings
from e2e.chaos.plan import AGENT_NODE, AGENTS, AGENTS_LINK, OPERATOR_LINK, Fault, FaultKind
from e2e.chaos.rig import NAMESPACES, SCENARIO, SPEED
from e2e.chaos.workload import plan_tasks
from perllm.api.task_status import RunsAs
from perllm_lab.workload.scenarios import load_scenario

TASKS, OVER_S = 150, 15.0
FAULTS = (
    Fault(2.0, FaultKind.REFUSALS, "", 3.0, 0.1),
    Fault(1.5, FaultKind.DELETE_RUNNING_TASK, "", 0.0, 0.5),
    Fault(1.0, FaultKind.SERVER_CRASH, AGENT_NODE, 2.0, 0.0),
    Fault(1.5, FaultKind.KILL, AGENTS, 0.3, 0.0),
    Fault(3.0, FaultKind.EDIT_STATUS, "", 0.0, 0.5),
    Fault(0.5, FaultKind.CUT, AGENTS_LINK, 2.0, 0.0),
    Fault(1.0, FaultKind.STALL, OPERATOR_LINK, 2.0, 0.0),
    Fault(2.5, FaultKind.KILL, "operator", 0.3, 0.0),
)


async def test_served_tasks_end_once_and_are_learned_once_whatever_fails(
    binaries: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="perllm.cluster")
    orders = plan_tasks(
        load_scenario(SCENARIO), NAMESPACES, TASKS, over_s=OVER_S, speed=SPEED, seed=[5], runs_as=RunsAs.REQUEST
    )
    findings = ChaosFindings((await run_chunk(Chunk(0, FAULTS, orders, RunsAs.REQUEST), binaries, tmp_path, print),))
    Console(width=120).print(findings.render())
    problems = findings.list_problems()
    print("\n".join(problems))
    assert not problems
