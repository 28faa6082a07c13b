"""What `make chaos` and `make hostile` share: the options, the folder of a run, and how its outcome is printed."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import click
from rich.console import Console
from rich.table import Table

Say = Callable[[str], None]

seed_option = click.option("--seed", default=0, show_default=True, help="Of everything that is drawn at random.")
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lab"),
    show_default=True,
    help="Parent of the folder with the files of this run, which the next run replaces.",
)


class Findings(Protocol):
    """The outcome of a run."""

    def render(self) -> Table:
        """Return a table of what happened."""

    def list_problems(self) -> Sequence[str]:
        """Return one line per defect."""


def run_and_exit(
    run: Callable[[Path, Say], Coroutine[Any, Any, Findings]], folder: Path, console: Console, *, resume: bool = False
) -> NoReturn:
    """Run in a folder, print the findings, and exit with 1 if there are problems, else with 0.

    The folder is empty at the start, unless the run is to `resume` what an earlier one has left there.
    """
    folder = folder.absolute()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    findings: Findings = asyncio.run(run(folder, console.print))
    problems = findings.list_problems()
    console.print(findings.render())
    for problem in problems:
        console.print(f"PROBLEM: {problem}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"logs: {folder}")
    raise SystemExit(bool(problems))
