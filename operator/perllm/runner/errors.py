"""How the runner ends."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code says; part of the runner's interface. A signal adds 128, as shells do."""

    DONE = 0
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    OUT_OF_TIME = 5
    RESULT_LOST = 6


class EndpointError(Exception):
    """A prompt was not answered, or not to the end.

    Attributes:
        code: what the runner's exit code says of it.
    """

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ResultError(Exception):
    """A result could not be written; the message says what to do."""
