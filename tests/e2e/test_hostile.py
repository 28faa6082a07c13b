"""Whatever users, containers, editors of objects and servers send: the task ends with a status that names the fault."""

from pathlib import Path

from rich.console import Console

from e2e.hostile.bystander import PLACED_WITHIN_S
from e2e.hostile.experiment import HostileExperiment
from e2e.hostile.rig import open_rig

OBJECTS = 100
SEED = 10


async def test_hostile_input_is_answered_and_affects_no_other_task(binaries: dict[str, Path], tmp_path: Path) -> None:
    async with open_rig(binaries, tmp_path) as rig:
        findings = await HostileExperiment(rig, print).run(OBJECTS, SEED)
    Console(width=160).print(findings.render())
    assert findings.list_problems() == []
    assert max(findings.waits_s) < PLACED_WITHIN_S
