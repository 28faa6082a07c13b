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
    """The kinds of destinations for a result."""

    TERMINATION = "termination"
    CONFIG_MAP = "configmap"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination for the answers; ``name`` is the name of the ConfigMap or the path of the file."""

    kind: DestinationKind = DestinationKind.TERMINATION
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Return the destination for ``termination``, ``configmap:NAME`` or ``file:PATH``.

        Raises:
            ValueError: the text is none of these.
        """
        kind, _, name = text.partition(":")
        if kind not in set(DestinationKind) or bool(name) == (kind == DestinationKind.TERMINATION):
            raise ValueError(f"{text!r} is not a destination: write termination, configmap:NAME or file:PATH")
        if len(text) > MAX_LOCATION_LENGTH:
            raise ValueError(f"the destination is longer than {MAX_LOCATION_LENGTH} characters")
        if kind == DestinationKind.CONFIG_MAP and not CONFIG_MAP_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for a ConfigMap: use lower-case letters, digits, '-' and '.'")
        return cls(DestinationKind(kind), name)

    @property
    def location(self) -> str | None:
        """Where the answers are, as the report says it; None if they are in the report itself."""
        return None if self.kind is DestinationKind.TERMINATION else f"{self.kind}:{self.name}"


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        ResultError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be written: {error}. Mount a volume there that the pod may write to."
        ) from error


def write_termination_message(path: Path, text: str) -> None:
    """Write the container's termination message; outside of a container, log it instead.

    Raises:
        ResultError: it cannot be written.
    """
    try:
        if not path.exists():
            log.info("%s does not exist, so this is not a container; the report is %s", path, text)
            return
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultError(f"the termination message {path} cannot be written: {error}") from error
