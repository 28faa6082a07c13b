"""Changes of fields of what is composed of parts."""

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def replace_fields(whole: T, **fields: Any) -> T:
    """A copy of a dataclass with other values of its fields, or of the fields of the dataclasses it holds."""
    changed, known = _replace(whole, fields)
    assert known == set(fields), f"no such fields: {set(fields) - known}"
    return changed


def _replace(whole: Any, fields: dict[str, Any]) -> tuple[Any, set[str]]:
    values, known = {}, set()
    for name in (field.name for field in dataclasses.fields(whole)):
        part = getattr(whole, name)
        if name in fields:
            values[name] = fields[name]
            known.add(name)
        elif dataclasses.is_dataclass(part):
            values[name], of_part = _replace(part, fields)
            known |= of_part
    return dataclasses.replace(whole, **values), known
