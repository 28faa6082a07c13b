"""`make chaos`: kill the processes of a lab at random while tasks arrive, and report what became of the tasks."""

from pathlib import Path

import click
from rich.console import Console

from e2e.chaos.experiment import ChaosExperiment
from e2e.chaos.findings import ChaosFindings
from e2e.command import Say, folder_option, run_and_exit, seed_option
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS, Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SETTINGS = LabSettings("modern", 3.0)


@click.command(help=__doc__)
@seed_option
@click.option("--minutes", default=3.0, show_default=True, type=click.FloatRange(min=0.5), help="While tasks arrive.")
@folder_option
def main(seed: int, minutes: float, folder: Path) -> None:
    async def run(folder: Path, say: Say) -> ChaosFindings:
        binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
        async with Lab(binaries, load_scenario(SETTINGS.scenario_name), folder, SETTINGS) as lab:
            return await ChaosExperiment(lab, seed, 60.0 * minutes, say).run()

    run_and_exit(run, folder / "chaos", Console())


if __name__ == "__main__":
    main()
