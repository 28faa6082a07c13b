"""The prompts of a task, from arguments, files or standard input."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson

Message = dict[str, Any]
Prompt = tuple[Message, ...]
"""The messages of one conversation, as the chat API takes them."""

MAX_PROMPTS = 100_000


class PromptError(Exception):
    """The prompts cannot be used; the message names the line."""


def collect_prompts(
    texts: Sequence[str], files: Iterable[Path], stdin: TextIO | None, system: str | None
) -> tuple[Prompt, ...]:
    """Return all prompts: of arguments, then of files, then of standard input.

    A file holds one prompt per line; one that ends in ``.jsonl`` holds one JSON object per line, with ``prompt`` or
    ``messages``. Empty lines do not count.

    Args:
        texts: prompts as they are.
        files: files of prompts.
        stdin: one prompt per line; None when it is not to be read.
        system: message that goes before every prompt that brings no messages of its own.

    Raises:
        PromptError: a file cannot be read or a line is no prompt, or there is none at all.
    """
    found = [_converse(text, system) for text in texts]
    for file in files:
        found.extend(_read_file(file, system))
    if stdin is not None:
        found.extend(_converse(line, system) for line in _lines(stdin))
    if not found:
        raise PromptError("there is no prompt: give --prompt, --prompt-file or prompts on standard input")
    if len(found) > MAX_PROMPTS:
        raise PromptError(f"{len(found)} prompts are too many for one task: at most {MAX_PROMPTS}")
    return tuple(found)


def _read_file(file: Path, system: str | None) -> Iterator[Prompt]:
    try:
        lines = list(_lines(file.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        yield (
            _read_object(line, f"{file}, prompt {number}", system)
            if file.suffix == ".jsonl"
            else _converse(line, system)
        )


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip())


def _converse(text: str, system: str | None) -> Prompt:
    before = ({"role": "system", "content": system},) if system else ()
    return (*before, {"role": "user", "content": text})


def _read_object(line: str, place: str, system: str | None) -> Prompt:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise PromptError(f"{place} is no JSON: {error}") from error
    match values:
        case {"messages": [*messages]} if messages and all(isinstance(one, dict) for one in messages):
            return tuple(messages)
        case {"prompt": str(text)} if text:
            return _converse(text, system)
    raise PromptError(f'{place} must be an object with "prompt", a text, or "messages", a list of objects')
