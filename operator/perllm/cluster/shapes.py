"""Reads parts of objects whose type is not guaranteed: a value of an unexpected type counts as absent."""

from typing import Any


def as_object(value: object) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[dict[str, Any]]:
    """Return the JSON objects in `value` if it is a list, else none."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def as_list(value: object) -> list[Any]:
    """Return `value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """Return `value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""
