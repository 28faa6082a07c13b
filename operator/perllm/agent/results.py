"""What is reported about a request: how it ended, when, how long it took, and the answer."""

from perllm.api.served_run import RunEnd, ServedRun
from perllm.api.task_status import MAX_ANSWER_LENGTH, Result
from perllm.cluster.times import to_time
from perllm.completions.answer import Answer
from perllm.completions.errors import CompletionError, ServerFailedError, UnavailableError
from perllm.text import clean_line, clean_text, cut

MAX_RETRY_AFTER_S = 3600.0


def describe_run(
    attempt: int, answer: Answer, error: CompletionError | None, *, begun_unix_s: float, length_s: float
) -> ServedRun:
    """Return what is reported about a request.

    Args:
        attempt: number of the attempt.
        answer: the answer as far as it came.
        error: why it is not complete; None if it is.
        begun_unix_s: Unix time at which the request was sent, by the clock of the cluster.
        length_s: seconds until it ended.
    """
    has_tokens = answer.chunks > 0 and answer.output_tokens is not None
    return ServedRun(
        attempt=attempt,
        end=_judge(error),
        start_time=to_time(begun_unix_s),
        end_time=to_time(begun_unix_s + length_s),
        time_to_first_token=answer.first_token_s,
        prompt_tokens=answer.reported_prompt_tokens,
        tokens=answer.output_tokens if has_tokens else None,
        token_source=answer.token_source if has_tokens else None,
        problem=clean_line(error) if error is not None else None,
        retry_after=_read_retry_after_s(error),
    )


def build_result(text: str) -> Result:
    """Return the answer as the status of a task holds it."""
    whole = clean_text(text, len(text))
    is_cut = len(whole) > MAX_ANSWER_LENGTH
    return Result(text=cut(whole, MAX_ANSWER_LENGTH), truncated=True if is_cut else None)


def check_text(answer: Answer) -> None:
    """Check that an answer has text, not only reasoning.

    Raises:
        ServerFailedError: it has none.
    """
    if not clean_text(answer.text, len(answer.text)).strip():
        reason = answer.finish_reason or "unknown"
        raise ServerFailedError(f"the answer has no text, finish reason {reason}; a larger maxTokens may help")


def _judge(error: CompletionError | None) -> RunEnd:
    if error is None:
        return RunEnd.ANSWERED
    return RunEnd.UNAVAILABLE if isinstance(error, UnavailableError) else RunEnd.FAILED


def _read_retry_after_s(error: CompletionError | None) -> float | None:
    if not isinstance(error, UnavailableError) or not error.retry_after_s:
        return None
    return min(error.retry_after_s, MAX_RETRY_AFTER_S)
