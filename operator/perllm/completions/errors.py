"""Why there is no complete answer, by what the caller can do about it."""

from perllm.text import cut

MAX_MESSAGE = 800

GENERATION_FAILED = 424
"""Status of TGI when the server, not the prompt, is the cause."""

TOO_MANY_REQUESTS = 429
NOT_READY = frozenset({408, 425, TOO_MANY_REQUESTS, 502, 503, 504, *range(520, 530)})
"""Statuses of servers, and of proxies in front of them, while a model is being loaded or all slots are taken."""


class CompletionError(Exception):
    """There is no complete answer; the message says why."""

    def shorten(self, *, without: str) -> None:
        """Truncate the message, and remove a key from it, which some servers repeat."""
        message = str(self)
        self.args = (cut(message.replace(without, "***") if without else message, MAX_MESSAGE),)


class PromptRejectedError(CompletionError):
    """The server gave no answer to this prompt; it may answer others."""


class NotAPartError(PromptRejectedError):
    """The server sent something that is not part of a completion."""


class ServerFailedError(CompletionError):
    """The server failed, or aborted the answer."""


class UnavailableError(CompletionError):
    """The server did not accept the request, but may do so later.

    Attributes:
        retry_after_s: after how many seconds the server asked for a retry; 0 if it did not.
        is_full: whether it said that it has too many requests.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0, *, is_full: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_full = is_full
