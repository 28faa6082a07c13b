"""How an operator is set up. One file, read once, validated as a whole; every field explains itself."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perllm.policy.cs_ucb import CsUcbParameters


class ConfigError(Exception):
    """The configuration cannot be used; the message names the field and what is expected."""
