"""Answers in the words of a real API server."""

import pytest

from perllm.cluster.client import ApiError, ApiUnreachableError
from perllm.controller.denial import is_invalid, read_denial
from perllm.scheduling.denial import DenialCause

SERVER_ERROR = 'Internal error occurred: failed calling webhook "w.example": context deadline exceeded'


@pytest.mark.parametrize(
    ("status", "reason", "message", "cause"),
    [
        (
            403,
            "Forbidden",
            'pods "q-1" is forbidden: exceeded quota: none, requested: pods=1',
            DenialCause.QUOTA,
        ),
        (403, "Forbidden", 'pods "q-1" is forbidden: violates PodSecurity "restricted:latest"', DenialCause.FORBIDDEN),
        (403, "Forbidden", 'pods "q-1" is forbidden: no PriorityClass with name x was found', DenialCause.FORBIDDEN),
        (
            403,
            "Forbidden",
            'error looking up service account a/x: serviceaccount "x" not found',
            DenialCause.FORBIDDEN,
        ),
        (400, "BadRequest", 'admission webhook "w.example" denied the request: no', DenialCause.FORBIDDEN),
        (422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", DenialCause.FORBIDDEN),
        (404, "NotFound", 'namespaces "a" not found', DenialCause.FORBIDDEN),
        (409, "AlreadyExists", 'pods "web-1" already exists', DenialCause.NAME_TAKEN),
        (409, "Conflict", "the object has been modified", DenialCause.API_SERVER),
        (500, "InternalError", SERVER_ERROR, DenialCause.WEBHOOK),
        (504, "Timeout", "request did not complete within requested timeout", DenialCause.WEBHOOK),
        (429, "TooManyRequests", "try again", DenialCause.API_SERVER),
        (503, "ServiceUnavailable", "", DenialCause.API_SERVER),
    ],
)
def test_a_denial_names_its_cause(status: int, reason: str, message: str, cause: DenialCause) -> None:
    error = ApiError(status, reason, message, retry_after_s=7.0)
    assert not is_invalid(error)
    denial = read_denial(error)
    assert (denial.cause, denial.message, denial.retry_after_s) == (cause, message or reason, 7.0)


def test_an_api_server_that_does_not_answer_may_do_so_later() -> None:
    assert read_denial(ApiUnreachableError("gone")).cause is DenialCause.API_SERVER


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'strict decoding error: unknown field "spec.containers[0].comand"'),
        (422, "spec.containers[0].image: Required value"),
        (413, "the request is too large"),
    ],
)
def test_what_no_api_server_will_ever_accept_is_invalid(status: int, message: str) -> None:
    assert is_invalid(ApiError(status, "Invalid", message))


def test_the_message_is_one_line_of_bounded_length() -> None:
    message = read_denial(ApiError(403, "Forbidden", "\x1b[31mno\n" + "x" * 5000)).message
    assert message.startswith("no xxx")
    assert len(message) <= 1000
