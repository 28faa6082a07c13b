"""Why a pod cannot be created now, and how long to wait before the next try."""

from dataclasses import dataclass
from enum import StrEnum

from perllm.backoff import Backoff


class DenialCause(StrEnum):
    """Why a pod is denied; reason of the condition Scheduled, and label of a metric."""

    QUOTA = "QuotaExceeded"
    FORBIDDEN = "PodForbidden"
    NAME_TAKEN = "PodNameTaken"
    WEBHOOK = "WebhookFailed"
    API_SERVER = "ApiServerUnavailable"
    FAULT = "OperatorFault"

    @property
    def backoff(self) -> Backoff:
        """How long to wait before the next try.

        A problem in a namespace lasts until a person solves it; an API server recovers by itself.
        """
        return Backoff(1.0, 10.0) if self is DenialCause.API_SERVER else Backoff(1.0, 120.0)


@dataclass(frozen=True, slots=True)
class PodDenial:
    """A pod that was not created, but may be later.

    Attributes:
        cause: why it was denied.
        message: in the API server's words.
        retry_after_s: how long the API server asked to wait.
    """

    cause: DenialCause
    message: str
    retry_after_s: float = 0.0
