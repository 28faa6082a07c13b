"""A run of the experiment on a lab and a release of its own."""

from pathlib import Path

from e2e.command import Say
from e2e.stage import open_stage
from e2e.upgrade.experiment import UpgradeExperiment, UpgradeFindings
from e2e.upgrade.release import open_release
from e2e.upgrade.sources import ROOT, provide_source
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS
from programs.modules import list_test_modules

EARLIER = "98704ce"
"""The last version with the second schema of the learned state."""


async def run_upgrade(commit: str, tasks: int, folder: Path, say: Say) -> UpgradeFindings:
    """Upgrade from a commit with so many tasks under way, and return what became of them.

    Raises:
        HistoryError: this clone does not have the commit.
    """
    cache_folder = default_cache_folder()
    old = await provide_source(commit, cache_folder)
    binaries = await provide((*COMPONENTS, "helm"), cache_folder=cache_folder, more_modules=list_test_modules())
    async with open_release(binaries, folder) as release:
        await release.install(old)
        async with open_stage(release.lab, "upgrade") as stage:
            return await UpgradeExperiment(release, stage, old, ROOT, say).run(tasks)
