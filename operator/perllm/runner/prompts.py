"""The prompts of a task, from arguments, files or standard input."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

Message = dict[str, Any]
Prompt = tuple[Message, ...]
"""The messages of one conversation, as the chat API takes them."""

MAX_PROMPTS = 100_000


class PromptError(Exception):
    """The prompts cannot be used; the message names the line."""


def collect_prompts(
    texts: Sequence[str], files: Iterable[Path], stdin: BinaryIO | None, system: str | None
) -> tuple[Prompt, ...]:
    """Return all prompts: of arguments, then of files, then of standard input.

    A file holds one prompt per line; one that ends in ``.jsonl`` holds one JSON object per line, with ``prompt`` or
    ``messages``. What is empty does not count.

    Args:
        texts: prompts as they are.
        files: files of prompts, in UTF-8.
        stdin: one prompt per line, in UTF-8; None when it is not to be read.
        system: message that goes before every prompt that brings no messages of its own.

    Raises:
        PromptError: a file cannot be read or a line is no prompt, there is none at all, or there are too many.
    """
    found = tuple(islice(_read_all(texts, files, stdin, system), MAX_PROMPTS + 1))
    if not found:
        raise PromptError("there is no prompt: give --prompt, --prompt-file or prompts on standard input")
    if len(found) > MAX_PROMPTS:
        raise PromptError(f"there are too many prompts for one task: more than {MAX_PROMPTS}")
    return found


def _read_all(
    texts: Sequence[str], files: Iterable[Path], stdin: BinaryIO | None, system: str | None
) -> Iterator[Prompt]:
    yield from (_converse(text, system) for text in texts if text.strip())
    for file in files:
        try:
            with file.open("rb") as stream:
                yield from _read(stream, str(file), system)
        except OSError as error:
            raise PromptError(f"{file} cannot be read: {error}") from error
    if stdin is not None:
        yield from _read(stdin, "standard input", system)


def _read(stream: BinaryIO, name: str, system: str | None) -> Iterator[Prompt]:
    for number, line in enumerate(stream, start=1):
        place = f"{name}, line {number},"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise PromptError(f"{place} is no UTF-8: {error}") from error
        if text:
            yield _read_object(text, place, system) if name.endswith(".jsonl") else _converse(text, system)


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
