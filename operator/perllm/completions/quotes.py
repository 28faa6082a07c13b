"""Removes from what a model server says everything that it repeats of the prompt.

Servers quote the input that they do not accept, and their words go into logs and events, where no prompt belongs.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from perllm.text import ELLIPSIS

LEAST = 12
"""Letters and digits in a row that are taken for a quotation; of a shorter prompt all of them."""

SHORTEST = 6
"""Prompts with fewer are not looked for: their words are anywhere."""

_ESCAPED_LETTER = re.compile(r"\\+u([0-9a-fA-F]{4})")
_LETTER = re.compile(r"(?<!\\)[^\W_]|(?<=\\)[^\W_nrtbf]")
"""A letter or digit, but not that of an escaped line break."""


def hide_quotes(words: str, messages: Iterable[Mapping[str, Any]]) -> str:
    """Return words of a server with an ellipsis for what they repeat of a conversation, also if it is escaped there."""
    shown = _ESCAPED_LETTER.sub(_unescape, words)
    places = [found.start() for found in _LETTER.finditer(shown)]
    letters = "".join(shown[place] for place in places)
    hidden: set[int] = set()
    for text in _list_texts([message.get("content") for message in messages]):
        known = "".join(filter(str.isalnum, text))
        length = min(LEAST, len(known))
        if length < SHORTEST:
            continue
        for start in range(len(letters) - length + 1):
            if letters[start : start + length] in known:
                hidden.update(range(places[start], places[start + length - 1] + 1))
    if not hidden:
        return words
    runs = groupby(range(len(shown)), key=hidden.__contains__)
    return "".join(ELLIPSIS if is_hidden else "".join(shown[at] for at in run) for is_hidden, run in runs)


def _unescape(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if character.isalnum() else escaped[0]


def _list_texts(content: object) -> Iterator[str]:
    """Yield the texts in the content of a message, which may have several parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | tuple):
        for part in content:
            yield from _list_texts(part)
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _list_texts(value) if name != "type" else ()
