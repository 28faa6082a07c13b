"""Prints answers, for people who watch and for logs. They matter more than being printed."""

import logging
import os
import sys
from contextlib import suppress

import click

from perllm.completions.answer import Answer
from perllm.runner.report import answer_line
from perllm.text import clean_text

log = logging.getLogger(__name__)


class AnswerPrinter:
    """Prints to standard output until that fails once: a reader that is gone, or a full disk, must cost no answer."""

    def __init__(self) -> None:
        self._is_open = True

    def print_text(self, text: str) -> None:
        """Print a piece of an answer."""
        self._print(clean_text(text, len(text)))

    def print_line(self, index: int, answer: Answer) -> None:
        """Print an answer as one line of JSON, which is in UTF-8 in every locale."""
        line = answer_line(index, answer).decode()
        self._print(clean_text(line, len(line)).encode())

    def _print(self, content: str | bytes) -> None:
        if not self._is_open:
            return
        try:
            click.echo(content, nl=False)
        except OSError as error:
            self._is_open = False
            log.warning("answers are no longer printed: %s", error)
            _discard_output()


def _discard_output() -> None:
    """Send standard output nowhere, or what is left in its buffer would fail once more when the process ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
