"""All settings, as a tree derived from the models: name, description, default."""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

_ATTRIBUTE = re.compile(r"^(\w+): (.+?)(?=^\w+: |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChartValue:
    """A value, or a section of values.

    Attributes:
        key: as written in values.yaml.
        description: in sentences.
        default: as JSON.
        children: entries of a section; empty for a value.
    """

    key: str
    description: str
    default: Any
    children: tuple["ChartValue", ...] = ()


def list_entries(section: Any) -> Iterator[ChartValue]:
    """List the fields of a pydantic model or a dataclass in the order of definition, with their values as defaults."""
    if isinstance(section, BaseModel):
        for name, field in type(section).model_fields.items():
            yield _entry(field.alias or name, field.description or "", getattr(section, name))
    else:
        texts = describe_attributes(type(section))
        for one in dataclasses.fields(section):
            yield _entry(one.name, texts[one.name], getattr(section, one.name))


def list_sections(entries: Sequence[ChartValue], path: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    """List every section by its path, the outer ones first, with the defaults of its own values."""
    yield path, {entry.key: entry.default for entry in entries if not entry.children}
    for entry in entries:
        if entry.children:
            yield from list_sections(entry.children, f"{path}.{entry.key}")


def describe_attributes(kind: type) -> dict[str, str]:
    """Read the section `Attributes` of a docstring: description by name."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(inspect.cleandoc(section))}


def _entry(key: str, description: str, default: Any) -> ChartValue:
    children = tuple(list_entries(default)) if is_section(default) else ()
    return ChartValue(key, description, TypeAdapter(Any).dump_python(default, mode="json", by_alias=True), children)


def is_section(value: Any) -> bool:
    """Whether a value has values of its own."""
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)
