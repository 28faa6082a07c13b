"""Live progress: builds that take minutes, and replays."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 10.0


class Stage(Protocol):
    """A step that takes a while."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show the progress; a total of 0 is not known yet."""


class Display:
    """Shows stages as bars on a terminal; elsewhere, as in a CI log, as a line every few seconds."""

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._now = now

    def say(self, text: str) -> None:
        """Print a line as it is, such as a command or a path to copy."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def explain(self, text: str) -> None:
        """Print sentences, broken between words where the terminal ends."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show a stage while it lasts."""
        if not self.console.is_terminal:
            yield _Lines(self, title, self._now)
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            refresh_per_second=4,
        ) as progress:
            yield _Bar(progress, progress.add_task(title, total=None, note=""))


class _Bar:
    def __init__(self, progress: Progress, line: TaskID) -> None:
        self._progress = progress
        self._line = line

    def update(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._line, completed=done, total=total or None, note=note)


class _Lines:
    """Prints the progress every few seconds, and at the end."""

    def __init__(self, display: Display, title: str, now: Callable[[], float]) -> None:
        self._display = display
        self._title = title.strip()
        self._now = now
        self._start_s = now()
        self._said_s = float("-inf")
        self._said = ""

    def update(self, done: int, total: int, note: str = "") -> None:
        now_s = self._now()
        line = f"{self._title}: {done}/{total or '?'}{self._left(done, total, now_s)}{f'; {note}' if note else ''}"
        is_due = now_s - self._said_s >= PLAIN_INTERVAL_S or (done == total and total > 0)
        if is_due and line != self._said:
            self._said_s, self._said = now_s, line
            self._display.say(f"[{now_s - self._start_s:4.0f} s] {line}")

    def _left(self, done: int, total: int, now_s: float) -> str:
        """Return the time left at the mean pace so far, in minutes."""
        if not 0 < done < total:
            return ""
        return f", {(now_s - self._start_s) / done * (total - done) / 60.0:.0f} min left"
