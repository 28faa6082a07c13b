"""JSON from the API server, read so that no object can keep the others from being read.

The API server takes objects that are nested ten thousand levels deep; parsers give up long before. What is nested too
deeply is replaced by a marker, so that the object arrives, can be judged, and can be refused by name.
"""

import re
from typing import Any

import orjson

MAX_DEPTH = 128
"""Levels that are kept: far more than any real object has, far fewer than any parser takes."""

SAFE_BRACKETS = 400
"""Text with fewer opening brackets cannot be nested too deeply for any parser, which spares looking closer."""

TOO_DEEP = b'"(nested too deeply)"'

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class UndecodableError(ValueError):
    """What came is no JSON object."""


def decode(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`, without what is nested too deeply.

    Raises:
        UndecodableError: there is none.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = _decode_pruned(content)
    if not isinstance(value, dict):
        raise UndecodableError(f"no JSON object: {content[:100]!r}")
    return value


def prune(content: bytes) -> bytes:
    """Return JSON text with everything below `MAX_DEPTH` levels replaced by a marker; linear in its length."""
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
        raise UndecodableError(f"no JSON: {error}: {content[:100]!r}") from error
    return value
