"""Where answers go: a file that outlives a crash, or the terminal."""

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import click
from pydantic import ValidationError

from perllm.runner.prompts import first_error
from perllm.submission.answers import AnswerLine


class OutputError(Exception):
    """The output cannot be continued; the message says what to do."""


class Output(Protocol):
    """Takes the answers as they come."""

    def write(self, line: AnswerLine) -> None:
        """Write one line; once it returns, the line is not lost.

        Raises:
            OSError: it cannot be written.
        """


class AnswerFile:
    """A file with one JSON object per line, which only one process writes at a time.

    A line that was cut off by a crash is removed when the file is opened, since its task is asked about again.

    Args:
        path: the file; it is created if it does not exist.

    Raises:
        OutputError: another process writes to it, or it is not such a file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            self.lines = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def check(self, tasks: Collection[str]) -> None:
        """Raise OutputError if a line is about none of these tasks."""
        for number, line in enumerate(self.lines, start=1):
            if line.task not in tasks:
                raise OutputError(
                    f"{self._path} has answers to other prompts or options (line {number}): give another --output"
                )

    def write(self, line: AnswerLine) -> None:
        """Append a line, and wait until it is on the disk."""
        self._file.write(line.to_bytes())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{self._path}: another process writes to this file") from error

    def _read(self) -> list[AnswerLine]:
        self._file.seek(0)
        lines, end = [], 0
        for number, content in enumerate(self._file, start=1):
            if not content.endswith(b"\n"):
                break
            lines.append(self._parse(content, number))
            end += len(content)
        self._file.truncate(end)
        return lines

    def _parse(self, content: bytes, number: int) -> AnswerLine:
        try:
            return AnswerLine.model_validate_json(content)
        except ValidationError as error:
            raise OutputError(
                f"{self._path}, line {number}, is not an answer ({first_error(error)}): give another --output"
            ) from error


class LinePrinter:
    """Prints lines to standard output."""

    def write(self, line: AnswerLine) -> None:
        """Print a line."""
        click.echo(line.to_bytes(), nl=False)


class TextPrinter:
    """Prints the text of answers to standard output."""

    def write(self, line: AnswerLine) -> None:
        """Print the text, and on standard error why it is missing or not complete."""
        if line.text is not None:
            click.echo(line.text)
        if line.truncated:
            click.echo("(the answer is longer)", err=True)
        if line.problem is not None:
            click.echo(f"no answer: {line.problem}", err=True)
