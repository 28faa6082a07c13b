"""`make chaos`: kill the processes of a lab at random while tasks flow, and say what became of everything."""

import asyncio
from pathlib import Path

import click
from rich.console import Console

from e2e.chaos.experiment import Experiment
from e2e.chaos.findings import Findings
from e2e.folders import empty_folder
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS, Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SETTINGS = LabSettings("modern", 3.0)


@click.command(help=__doc__)
@click.option("--seed", default=0, show_default=True, help="Of faults and tasks.")
@click.option("--minutes", default=3.0, show_default=True, type=click.FloatRange(min=0.5), help="While tasks arrive.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lab"),
    show_default=True,
    help="The files of a run are in chaos/ there, until the next run.",
)
def main(seed: int, minutes: float, folder: Path) -> None:
    """Exit with 1 when something was not as it must be."""
    console = Console()
    folder = empty_folder(folder.absolute() / "chaos")
    findings = asyncio.run(_run(seed, 60.0 * minutes, folder, console))
    console.print(findings.render())
    for problem in findings.problems:
        console.print(f"PROBLEM: {problem}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"logs: {folder}")
    raise SystemExit(bool(findings.problems))


async def _run(seed: int, length_s: float, folder: Path, console: Console) -> Findings:
    binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
    async with Lab(binaries, load_scenario(SETTINGS.scenario_name), folder, SETTINGS) as lab:
        return await Experiment(lab, seed, length_s, console.print).run()


if __name__ == "__main__":
    main()
