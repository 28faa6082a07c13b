"""`make chaos`: inject faults of all kinds into a lab while tasks arrive, and report what became of the tasks."""

import logging
from pathlib import Path

import click
from rich.console import Console

from e2e.chaos.campaign import CHUNK_FAULTS, plan_chunks, run_campaign
from e2e.chaos.findings import ChaosFindings
from e2e.command import Say, folder_option, run_and_exit, seed_option
from perllm.api.task_status import RunsAs
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS

WORK = {"pods": RunsAs.POD, "requests": RunsAs.REQUEST}


@click.command(help=__doc__)
@seed_option
@click.option("--faults", default=CHUNK_FAULTS, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option(
    "--tasks", default=10 * CHUNK_FAULTS, show_default=True, type=click.IntRange(min=1), help="About how many."
)
@click.option("--work", type=click.Choice(list(WORK)), default="pods", show_default=True, help="What tasks run as.")
@click.option("--part", "parts", type=int, multiple=True, help="Run only this part of the run; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run that had the same options.")
@folder_option
def main(seed: int, faults: int, tasks: int, work: str, parts: tuple[int, ...], resume: bool, folder: Path) -> None:
    # The watches of the run itself break as often as those of the operator.
    logging.getLogger("perllm.cluster").setLevel(logging.ERROR)
    chunks = [one for one in plan_chunks(seed, faults, tasks, WORK[work]) if not parts or one.number in parts]

    async def run(folder: Path, say: Say) -> ChaosFindings:
        binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
        return await run_campaign(chunks, binaries, folder, say)

    run_and_exit(run, folder / "chaos", Console(), resume=resume)


if __name__ == "__main__":
    main()
