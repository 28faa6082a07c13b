"""Configuration files: read once, and validated as a whole."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from perllm.yaml_text import read_yaml

T = TypeVar("T", bound=BaseModel)

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a setting that a section, or a section that is a dataclass, does not have."""


class ConfigError(Exception):
    """The configuration is invalid; the message names the field and the expected value."""


def read_settings(model: type[T], file: Path | None) -> T:
    """Read the settings in a YAML file; without a file, return the defaults.

    Raises:
        ConfigError: the file cannot be read, or it is invalid.
    """
    if file is None:
        return model()
    try:
        values: Any = read_yaml(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"configuration file {file} cannot be read: {error}") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = "\n".join(
            f"  {'.'.join(map(str, one['loc'])) or 'file'}: "
            f"{_explain_unknown(model, one['loc']) if one['type'] in UNKNOWN else one['msg']}"
            for one in problems
        )
        raise ConfigError(f"configuration file {file} is wrong:\n{lines}") from error


def none_if_empty(value: object) -> object:
    """Return None for an empty text: what was set is usually unset by that, as with `helm --set NAME=`."""
    return None if value == "" else value


def _explain_unknown(model: type[BaseModel], place: Sequence[int | str]) -> str:
    """Return that there is no setting at a place, and which one of its section may be meant."""
    schema = model.model_json_schema()
    section = schema
    for name in place[:-1]:
        inner = section.get("items", {}) if isinstance(name, int) else section.get("properties", {}).get(name, {})
        reference = next((one["$ref"] for one in (inner, *inner.get("anyOf", ())) if "$ref" in one), None)
        section = schema["$defs"][reference.rpartition("/")[2]] if reference else inner
    similar = get_close_matches(str(place[-1]), section.get("properties", {}), n=1)
    return "there is no such setting" + (f"; is {similar[0]} meant?" if similar else "")
