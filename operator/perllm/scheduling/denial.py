"""Why a pod cannot be created now, and how long to wait before it is tried again."""

from dataclasses import dataclass
from enum import StrEnum

from perllm.backoff import Backoff


class DenialCause(StrEnum):
    """What stands in the way of a pod; reason of the condition Scheduled, and label of a metric."""

    QUOTA = "QuotaExceeded"
    FORBIDDEN = "PodForbidden"
    NAME_TAKEN = "PodNameTaken"
    WEBHOOK = "WebhookFailed"
    API_SERVER = "ApiServerUnavailable"
    FAULT = "OperatorFault"

    @property
    def backoff(self) -> Backoff:
        """How long to wait before the pod is tried again.

        What is wrong in a namespace lasts until somebody does something about it; an API server recovers by itself.
        """
        return Backoff(1.0, 10.0) if self is DenialCause.API_SERVER else Backoff(1.0, 120.0)


@dataclass(frozen=True, slots=True)
class PodDenial:
    """A pod that was not created, but may be later.

    Attributes:
        cause: what stands in the way.
        message: in the API server's words.
        retry_after_s: how long it asked to wait.
    """

    cause: DenialCause
    message: str
    retry_after_s: float = 0.0
