"""Why the API server does not create a pod, and whether it may later."""

from dataclasses import dataclass
from enum import StrEnum

from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, ApiTimeoutError

_INVALID = (400, 413, 422)


class Cause(StrEnum):
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
        return Backoff(1.0, 10.0) if self is Cause.API_SERVER else Backoff(1.0, 120.0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A pod that was not created, but may be later.

    Attributes:
        cause: what stands in the way.
        message: in the API server's words.
        retry_after_s: how long it asked to wait.
    """

    cause: Cause
    message: str
    retry_after_s: float = 0.0


def is_invalid(error: ApiError) -> bool:
    """Whether the API server will never accept the pod; a policy may change, whatever code it answers with."""
    return error.status in _INVALID and not _is_denied(error)


def read_refusal(error: ApiError) -> Refusal:
    """Return what an answer means that is neither a success nor final."""
    return Refusal(_find_cause(error), error.message or error.reason, error.retry_after_s)


def _find_cause(error: ApiError) -> Cause:
    if error.status == 403 and "exceeded quota" in error.message:
        return Cause.QUOTA
    if error.status == 409 and error.reason == "AlreadyExists":
        return Cause.NAME_TAKEN
    if "failed calling webhook" in error.message or error.status == 504 or isinstance(error, ApiTimeoutError):
        return Cause.WEBHOOK
    if error.status in (403, 404) or _is_denied(error):
        return Cause.FORBIDDEN
    return Cause.API_SERVER


def _is_denied(error: ApiError) -> bool:
    """Whether a webhook or an admission policy said no, each in Kubernetes' own words."""
    return "denied the request" in error.message or "denied request" in error.message
