"""`make upgrade`: replace an earlier version by this one with tasks under way, and roll back; report on the tasks."""

from pathlib import Path

import click
from rich.console import Console

from e2e.command import Say, folder_option, run_and_exit
from e2e.upgrade.experiment import UpgradeFindings
from e2e.upgrade.run import EARLIER, run_upgrade


@click.command(help=__doc__)
@click.option("--from", "commit", default=EARLIER, show_default=True, help="The commit of the earlier version.")
@click.option(
    "--tasks",
    default=500,
    show_default=True,
    type=click.IntRange(min=10),
    help="How many are created before each change.",
)
@folder_option
def main(commit: str, tasks: int, folder: Path) -> None:
    async def run(folder: Path, say: Say) -> UpgradeFindings:
        return await run_upgrade(commit, tasks, folder, say)

    run_and_exit(run, folder / "upgrade", Console())


if __name__ == "__main__":
    main()
