"""Live progress: builds that take minutes, and replays."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL_S = 10.0


class Stage:
    """One line of progress."""

    def __init__(self, progress: Progress, line: TaskID) -> None:
        self._progress = progress
        self._line = line

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show how far it is."""
        self._progress.update(self._line, completed=done, total=total or None, note=note)


class Display:
    """Shows stages as bars on a terminal; elsewhere says when each begins and ends, and how it goes now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show a stage while it lasts."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            refresh_per_second=4,
        ) as progress:
            yield Stage(progress, progress.add_task(title, total=None, note=""))
