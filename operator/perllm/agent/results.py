"""What is reported about an attempt: how it ended, when, how long it took, and the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from perllm.agent.inquiry import Inquiry, Reply
from perllm.api.base import MAX_TOKENS
from perllm.api.report import TokenSource
from perllm.api.served_run import PromptCounts, RunEnd, ServedRun
from perllm.api.task_answer import MAX_STORED_LENGTH, PromptAnswer, TaskAnswer
from perllm.api.task_status import MAX_ANSWER_LENGTH, Result
from perllm.cluster.times import to_time
from perllm.completions.answer import Answer
from perllm.completions.errors import CompletionError, UnavailableError
from perllm.text import clean_line, clean_text, cut

MAX_RETRY_AFTER_S = 3600.0
MAX_PROMPT_PROBLEM = 200


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """How an attempt ended.

    Attributes:
        run: times, tokens, and how it ended.
        result: the answer as the status of the task holds it; None if there is none.
        answer: what the status cannot hold; None if it can hold everything.
    """

    run: ServedRun
    result: Result | None = None
    answer: TaskAnswer | None = None

    def without_answer(self, reason: str) -> "AttemptReport":
        """Return the report if what the status cannot hold could not be stored: a text that is cut off is kept."""
        if self.result is not None and self.result.text is not None:
            return AttemptReport(self.run, self.result.model_copy(update={"answer_name": None}))
        problem = f"the answers could not be stored: {reason}"
        return AttemptReport(self.run.model_copy(update={"end": RunEnd.FAILED, "problem": problem}))


def build_report(
    attempt: int, inquiry: Inquiry, answer_name: str, *, begun_unix_s: float, length_s: float
) -> AttemptReport:
    """Return what is reported about an attempt.

    Args:
        attempt: its number.
        inquiry: what became of its prompts.
        answer_name: name of the object for what the status cannot hold.
        begun_unix_s: Unix time at which the first request was sent, by the clock of the cluster.
        length_s: seconds until the last one ended.
    """
    error = inquiry.error
    # Without a list it is reported how far the one answer came.
    counted = inquiry.answers if inquiry.has_list else [reply.answer for reply in inquiry.replies]
    tokens, source = _count_tokens(counted)
    run = ServedRun(
        attempt=attempt,
        end=_judge(error),
        start_time=to_time(begun_unix_s),
        end_time=to_time(begun_unix_s + length_s),
        load_time=_add_loads([one.load_s for one in counted]),
        time_to_first_token=_mean([one.first_token_s for one in counted]),
        prompt_tokens=_sum([one.reported_prompt_tokens for one in counted]),
        tokens=tokens,
        token_source=source,
        finish_reason=None if inquiry.has_list else inquiry.replies[0].answer.finish_reason,
        problem=_explain(inquiry, error) if error is not None else None,
        retry_after=_read_retry_after_s(error),
        prompts=_count_prompts(inquiry) if inquiry.has_list else None,
    )
    return AttemptReport(run) if error is not None else _add_answer(run, inquiry, answer_name)


def _add_answer(run: ServedRun, inquiry: Inquiry, answer_name: str) -> AttemptReport:
    """Return the report of an attempt that has answers: one that is short in the status, others in an object."""
    texts = [_read_text(reply) for reply in inquiry.replies]
    if inquiry.has_list:
        result = Result(answer_name=answer_name)
    elif len(texts[0]) <= MAX_ANSWER_LENGTH:
        return AttemptReport(run, Result(text=texts[0]))
    else:
        result = Result(text=cut(texts[0], MAX_ANSWER_LENGTH), truncated=True, answer_name=answer_name)
    limit = MAX_STORED_LENGTH if sum(map(len, texts)) <= MAX_STORED_LENGTH else MAX_STORED_LENGTH // len(texts)
    each = enumerate(zip(inquiry.replies, texts, strict=True))
    answers = tuple(_describe_reply(index, reply, text, limit) for index, (reply, text) in each)
    return AttemptReport(run, result, TaskAnswer(attempt=run.attempt, answers=answers))


def _describe_reply(index: int, reply: Reply, text: str, limit: int) -> PromptAnswer:
    answer, (tokens, _) = reply.answer, _count_tokens([reply.answer])
    return PromptAnswer(
        index=index,
        text=cut(text, limit) if reply.error is None else None,
        truncated=True if len(text) > limit else None,
        problem=None if reply.error is None else clean_line(reply.error, MAX_PROMPT_PROBLEM),
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.reported_prompt_tokens,
        output_tokens=tokens,
    )


def _read_text(reply: Reply) -> str:
    """Return the text of a complete answer; nothing of one that is not."""
    return "" if reply.error is not None else clean_text(reply.answer.text, len(reply.answer.text))


def _count_prompts(inquiry: Inquiry) -> PromptCounts:
    total, answered = len(inquiry.replies), len(inquiry.answers)
    return PromptCounts(total=total, answered=answered, failed=total - answered, repeated=inquiry.repeated)


def _count_tokens(answers: Sequence[Answer]) -> tuple[int | None, TokenSource | None]:
    """Return the generated tokens of all answers and how they are known; nothing if those of one are not."""
    tokens = _sum([one.output_tokens if one.chunks else None for one in answers])
    if tokens is None:
        return None, None
    is_reported = all(one.token_source is TokenSource.USAGE for one in answers)
    return tokens, TokenSource.USAGE if is_reported else TokenSource.CHUNKS


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return min(sum(known), MAX_TOKENS) if known and len(known) == len(counts) else None


def _add_loads(spans_s: Sequence[float | None]) -> float | None:
    known = _list_known(spans_s)
    return sum(known) if known else None


def _mean(spans_s: Sequence[float | None]) -> float | None:
    known = _list_known(spans_s)
    return fmean(known) if known else None


def _list_known(spans_s: Sequence[float | None]) -> list[float]:
    return [span_s for span_s in spans_s if span_s is not None]


def _explain(inquiry: Inquiry, error: CompletionError) -> str:
    if not inquiry.has_list or isinstance(error, UnavailableError):
        return clean_line(error)
    return clean_line(f"none of the {len(inquiry.replies)} prompts was answered; the last one: {error}")


def _judge(error: CompletionError | None) -> RunEnd:
    if error is None:
        return RunEnd.ANSWERED
    return RunEnd.UNAVAILABLE if isinstance(error, UnavailableError) else RunEnd.FAILED


def _read_retry_after_s(error: CompletionError | None) -> float | None:
    if not isinstance(error, UnavailableError) or not error.retry_after_s:
        return None
    return min(error.retry_after_s, MAX_RETRY_AFTER_S)
