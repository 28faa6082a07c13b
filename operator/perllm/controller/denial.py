"""What it means when the API server does not create a pod: whether it may do so later, and why not now."""

from perllm.cluster.client import ApiError, ApiTimeoutError
from perllm.scheduling.denial import DenialCause, PodDenial

_INVALID = (400, 413, 422)


def is_invalid(error: ApiError) -> bool:
    """Whether the API server will never accept the pod; a policy may change, so its denials are never final."""
    return error.status in _INVALID and not _is_denied(error)


def read_denial(error: ApiError) -> PodDenial:
    """Return why a pod was denied, from an answer that is neither a success nor final."""
    return PodDenial(_find_cause(error), error.message or error.reason, error.retry_after_s)


def _find_cause(error: ApiError) -> DenialCause:
    if error.status == 403 and "exceeded quota" in error.message:
        return DenialCause.QUOTA
    if error.status == 409 and error.reason == "AlreadyExists":
        return DenialCause.NAME_TAKEN
    if "failed calling webhook" in error.message or error.status == 504 or isinstance(error, ApiTimeoutError):
        return DenialCause.WEBHOOK
    if error.status in (403, 404) or _is_denied(error):
        return DenialCause.FORBIDDEN
    return DenialCause.API_SERVER


def _is_denied(error: ApiError) -> bool:
    """Whether a webhook or an admission policy denied the request, each in Kubernetes' own words."""
    return "denied the request" in error.message or "denied request" in error.message
