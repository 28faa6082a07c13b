"""`make hostile`: feed generated hostile input to a running operator, and report how it and a bystander fared."""

from pathlib import Path

import click
from rich.console import Console

from e2e.command import Say, folder_option, run_and_exit, seed_option
from e2e.hostile.experiment import HostileExperiment
from e2e.hostile.findings import HostileFindings
from e2e.hostile.rig import open_rig
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS

WIDTH = 160


@click.command(help=__doc__)
@click.option("--objects", default=150, show_default=True, type=click.IntRange(min=10), help="About how many.")
@seed_option
@folder_option
def main(objects: int, seed: int, folder: Path) -> None:
    async def run(folder: Path, say: Say) -> HostileFindings:
        binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
        async with open_rig(binaries, folder) as rig:
            return await HostileExperiment(rig, say).run(objects, seed)

    run_and_exit(run, folder / "hostile", Console(width=WIDTH))


if __name__ == "__main__":
    main()
