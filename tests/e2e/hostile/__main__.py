"""`make hostile`: feed generated hostile input to a running operator, and say what became of it and of a bystander."""

import asyncio
from pathlib import Path

import click
from rich.console import Console

from e2e.folders import empty_folder
from e2e.hostile.experiment import Experiment
from e2e.hostile.findings import Findings
from e2e.hostile.rig import open_rig
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS

WIDTH = 160


@click.command(help=__doc__)
@click.option("--objects", default=150, show_default=True, type=click.IntRange(min=10), help="About how many.")
@click.option("--seed", default=0, show_default=True, help="Of the input.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lab"),
    show_default=True,
    help="The files of a run are in hostile/ there, until the next run.",
)
def main(objects: int, seed: int, folder: Path) -> None:
    """Exit with 1 when there were faults."""
    console = Console(width=WIDTH)
    folder = empty_folder(folder.absolute() / "hostile")
    findings = asyncio.run(_run(objects, seed, folder, console))
    console.print(findings.render())
    for line in findings.render_faults():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"logs: {folder}")
    raise SystemExit(bool(findings.faults))


async def _run(objects: int, seed: int, folder: Path, console: Console) -> Findings:
    binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
    async with open_rig(binaries, folder) as rig:
        return await Experiment(rig, console.print).run(objects, seed)


if __name__ == "__main__":
    main()
