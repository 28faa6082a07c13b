"""Exit codes and errors of the runner."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes; part of the runner's interface. A signal adds 128, as in shells."""

    DONE = 0
    USAGE = 2
    UNREACHABLE = 3
    REJECTED = 4
    OUT_OF_TIME = 5
    RESULT_LOST = 6


class EndpointError(Exception):
    """A prompt was not answered, or not completely.

    Attributes:
        code: exit code of the runner for this error.
        may_answer_others: whether the server may answer other prompts.
    """

    def __init__(self, code: ExitCode, message: str, *, may_answer_others: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.may_answer_others = may_answer_others


class ResultError(Exception):
    """A result could not be written; the message says what to do."""
