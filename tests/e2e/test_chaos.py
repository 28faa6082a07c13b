"""Whatever fails, each task ends, runs once, is learned once, and leaves nothing behind."""

import logging
from pathlib import Path

import pytest
from rich.console import Console

from e2e.chaos.campaign import plan_chunks, run_chunk
from e2e.chaos.findings import ChaosFindings

SEED = 10
FAULTS, TASKS = 12, 120


async def test_tasks_end_once_and_are_learned_once_whatever_fails(
    binaries: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The watches of the test break as often as those of the operator.
    caplog.set_level(logging.ERROR, logger="perllm.cluster")
    (chunk,) = plan_chunks(SEED, FAULTS, TASKS)
    findings = ChaosFindings((await run_chunk(chunk, binaries, tmp_path, print),))
    Console(width=120).print(findings.render())
    problems = findings.list_problems()
    print("\n".join(problems))
    assert not problems
