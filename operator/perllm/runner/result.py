"""Where results go: the container's termination message, a ConfigMap or a file."""

import logging
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from perllm.runner.errors import ResultError

log = logging.getLogger(__name__)

MAX_LOCATION_LENGTH = 256
CONFIG_MAP_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


class DestinationKind(StrEnum):
    """The places that take a result."""

    TERMINATION = "termination"
    CONFIG_MAP = "configmap"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Destination:
    """A place for the answers; ``name`` is that of the ConfigMap or the path of the file."""

    kind: DestinationKind = DestinationKind.TERMINATION
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Return the place that ``termination``, ``configmap:NAME`` or ``file:PATH`` stands for.

        Raises:
            ValueError: the text is none of them.
        """
        kind, _, name = text.partition(":")
        if kind not in set(DestinationKind) or bool(name) == (kind == DestinationKind.TERMINATION):
            raise ValueError(f"{text!r} is no place for a result: write termination, configmap:NAME or file:PATH")
        if len(text) > MAX_LOCATION_LENGTH:
            raise ValueError(f"the place for the result is longer than {MAX_LOCATION_LENGTH} characters")
        if kind == DestinationKind.CONFIG_MAP and not CONFIG_MAP_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a ConfigMap: write lower-case letters, digits, '-' and '.'")
        return cls(DestinationKind(kind), name)

    @property
    def location(self) -> str | None:
        """What the report says of where the answers are; None when they are in the report itself."""
        return None if self.kind is DestinationKind.TERMINATION else f"{self.kind}:{self.name}"


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all.

    Raises:
        ResultError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be written: {error}. Mount a volume there that the pod may write to."
        ) from error


def write_termination_message(path: Path, text: str) -> None:
    """Write the container's termination message; outside of a container, where nobody reads it, log it instead.

    Raises:
        ResultError: it cannot be written.
    """
    try:
        if not path.exists():
            log.info("%s is not there, so this is no container; the report is %s", path, text)
            return
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultError(f"the termination message {path} cannot be written: {error}") from error
