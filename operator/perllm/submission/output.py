"""Where answers go: a file that outlives a crash, or the terminal."""

import fcntl
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import click
from pydantic import ValidationError

from perllm.runner.prompts import first_error
from perllm.submission.answers import AnswerLine
from perllm.submission.formats import LineFormat


class OutputError(Exception):
    """The output cannot be continued; the message says what to do."""


class Output(Protocol):
    """Takes the answers as they come.

    Attributes:
        lines: what it had when it was opened.
        has_energies: whether lines have the energy of their task, which is known seconds after its end.
    """

    lines: Sequence[AnswerLine]
    has_energies: bool

    def write(self, line: AnswerLine) -> None:
        """Write one line; once it returns, the line is not lost.

        Raises:
            OutputError, OSError: it cannot be written.
        """


class AnswerFile:
    """A file with one JSON object per line, which only one process writes at a time.

    A line that was cut off by a crash is removed when the file is opened, since its task is asked about again.

    Args:
        path: the file; it is created if it does not exist.
        tasks: names of the tasks that its lines may be about.
        line_format: how a line is written.

    Raises:
        OutputError: another process writes to it, or it is not such a file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, tasks: Collection[str], line_format: LineFormat) -> None:
        self.has_energies = True
        self._format = line_format
        self._path = path
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            self.lines: Sequence[AnswerLine] = self._read(tasks)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what a full disk does not take is in no line that counts
            self._file.close()

    def write(self, line: AnswerLine) -> None:
        """Append a line, and wait until it is on the disk."""
        try:
            self._file.write(self._format.encode(line))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            advice = "make room, and repeat the same command: it collects what is missing"
            raise OutputError(f"{self._path} cannot be written ({error}): {advice}") from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{self._path}: another process writes to this file") from error
        except OSError as error:  # some file systems have no locks, such as Lustre by default
            words = f"{self._path} cannot be locked ({error}): make sure that no other process writes to it"
            click.echo(words, err=True)

    def _read(self, tasks: Collection[str]) -> list[AnswerLine]:
        self._file.seek(0)
        lines, end = [], 0
        for number, content in enumerate(self._file, start=1):
            if not content.endswith(b"\n") and self._is_cut_off(content):
                break
            lines.append(self._parse(content, number, tasks))
            end += len(content)
        self._file.truncate(end)
        return lines

    def _parse(self, content: bytes, number: int, tasks: Collection[str]) -> AnswerLine:
        place = f"{self._path}, line {number},"
        try:
            line = self._format.decode(content)
        except ValidationError as error:
            raise OutputError(f"{place} is not an answer ({first_error(error)}): give another --output") from error
        if line.task not in tasks:
            raise OutputError(f"{place} belongs to other prompts or options: give another --output")
        return line

    def _is_cut_off(self, content: bytes) -> bool:
        """Whether this can be the beginning of a line, and not what some other program wrote."""
        start = self._format.start
        return content.startswith(start) or start.startswith(content)


class LinePrinter:
    """Prints lines to standard output.

    Args:
        line_format: how a line is written.
    """

    lines: Sequence[AnswerLine] = ()
    has_energies = True

    def __init__(self, line_format: LineFormat) -> None:
        self._format = line_format

    def write(self, line: AnswerLine) -> None:
        """Print a line."""
        click.echo(self._format.encode(line), nl=False)


class TextPrinter:
    """Prints the text of answers to standard output.

    Args:
        has_energies: whether it waits until the energies are known.
    """

    lines: Sequence[AnswerLine] = ()

    def __init__(self, *, has_energies: bool = False) -> None:
        self.has_energies = has_energies

    def write(self, line: AnswerLine) -> None:
        """Print the text, and on standard error why it is missing or not complete."""
        if line.text is not None:
            click.echo(line.text)
        if line.truncated:
            click.echo("(the answer was cut off)", err=True)
        if line.problem is not None:
            click.echo(f"no answer: {line.problem}", err=True)
