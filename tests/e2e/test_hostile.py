"""Whatever users, containers, people with an editor and servers send: it ends with a status that names its fault."""

from pathlib import Path

from rich.console import Console

from e2e.hostile.experiment import Experiment
from e2e.hostile.rig import open_rig

OBJECTS = 150
SEED = 10
MAX_PLACEMENT_S = 10.0


async def test_hostile_input_hurts_nobody_else_and_is_answered(binaries: dict[str, Path], tmp_path: Path) -> None:
    async with open_rig(binaries, tmp_path) as rig:
        findings = await Experiment(rig, print).run(OBJECTS, SEED)
    Console(width=160).print(findings.render())
    assert findings.render_faults() == []
    assert max(findings.waits_s) < MAX_PLACEMENT_S
