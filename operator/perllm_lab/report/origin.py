"""Where results come from, so that they can be made again."""

from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from typing import Self


@dataclass(frozen=True, slots=True)
class Origin:
    """Where results come from.

    Attributes:
        command: the command line that makes them again.
        version: of the laboratory.
        day: on which they were made.
    """

    command: str
    version: str
    day: date

    @classmethod
    def of(cls, command: str, day: date) -> Self:
        """Return the origin of results that the installed version makes."""
        return cls(command, version("perllm-lab"), day)
