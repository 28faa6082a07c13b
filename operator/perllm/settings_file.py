"""Configuration files: read once, and validated as a whole."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)


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
        values: Any = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {file} cannot be read: {error}") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = "\n".join(f"  {'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in problems)
        raise ConfigError(f"configuration file {file} is wrong:\n{lines}") from error
