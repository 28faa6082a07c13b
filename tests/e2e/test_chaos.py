"""The net for every change: whatever is killed, each task ends, once, and nothing is left over."""

from rich.console import Console

from e2e.chaos.experiment import Experiment
from perllm_lab.lab import Lab

SEED = 10
LENGTH_S = 90.0


async def test_tasks_end_once_whoever_is_killed_meanwhile(lab: Lab) -> None:
    findings = await Experiment(lab, SEED, LENGTH_S, print).run()
    Console(width=100).print(findings.render())
    assert findings.problems == ()
    assert len(findings.recoveries) >= 4
