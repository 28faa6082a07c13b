"""Decodes JSON from the API server so that no single object can keep the others from being read.

The API server accepts objects that are nested ten thousand levels deep; parsers fail long before that. Parts that are
nested too deeply are replaced by a marker, so the object can still be read, and rejected by name.
"""

import re
from typing import Any

import orjson

MAX_DEPTH = 128
"""Levels that are kept: far more than any real object has, far fewer than any parser accepts."""

SAFE_BRACKETS = 400
"""Text with fewer opening brackets cannot be nested too deeply for any parser, so it needs no closer look."""

TOO_DEEP = b'"(nested too deeply)"'

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class UndecodableError(ValueError):
    """The content is not a JSON object."""


def decode(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`, without parts that are nested too deeply.

    Raises:
        UndecodableError: `content` is not a JSON object.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = _decode_pruned(content)
    if not isinstance(value, dict):
        raise UndecodableError(f"not a JSON object: {content[:100]!r}")
    return value


def prune(content: bytes) -> bytes:
    """Return JSON text with everything below `MAX_DEPTH` levels replaced by a marker, in linear time."""
    if content.count(b"{") + content.count(b"[") <= SAFE_BRACKETS:
        return content
    kept: list[bytes] = []
    depth = kept_from = 0
    for token in _TOKENS.finditer(content):
        mark = token.group()[:1]
        if mark in b"{[":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += (content[kept_from : token.start()], TOO_DEEP)
        elif mark in b"}]":
            if depth == MAX_DEPTH + 1:
                kept_from = token.end()
            depth -= 1
    if not kept:
        return content
    return b"".join((*kept, content[kept_from:]))


def _decode_pruned(content: bytes) -> object:
    try:
        value: object = orjson.loads(prune(content))
    except orjson.JSONDecodeError as error:
        raise UndecodableError(f"not JSON: {error}: {content[:100]!r}") from error
    return value
