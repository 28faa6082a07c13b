"""Whichever process is killed, each task ends, runs once, and leaves nothing behind."""

import logging

import pytest
from rich.console import Console

from e2e.chaos.experiment import ChaosExperiment
from e2e.chaos.plan import VICTIMS
from perllm_lab.lab import Lab

SEED = 10
LENGTH_S = 90.0


async def test_tasks_end_once_whichever_process_is_killed(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    # The watches of the test break as often as those of the operator.
    caplog.set_level(logging.ERROR, logger="perllm.cluster")
    findings = await ChaosExperiment(lab, SEED, LENGTH_S, print).run()
    Console(width=100).print(findings.render())
    assert findings.list_problems() == ()
    assert {victim for one in findings.recoveries for victim in one.kill.victims} == set(VICTIMS)
