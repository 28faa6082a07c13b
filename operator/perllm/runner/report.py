"""What the runner reports: the run report that the operator reads, and the answers, each cut to where it has to fit."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from perllm.api.report import MAX_PROBLEM_LENGTH, MAX_REPORT_LENGTH, RunReport, TokenSource
from perllm.runner.answer import Answer
from perllm.runner.errors import ResultError
from perllm.runner.work import Work

# Four bytes a character at most, and the rest of the report has to fit as well.
MAX_PROBLEM_CHARACTERS = min(MAX_PROBLEM_LENGTH, MAX_REPORT_LENGTH // 8)


def summarise(work: Work, *, started_s: float, finished_s: float, unix_offset_s: float) -> RunReport:
    """Return what was measured, without any text.

    Args:
        work: what was done.
        started_s: when the runner started; monotonic, as all times of answers.
        finished_s: when it was done.
        unix_offset_s: what makes Unix seconds of them.
    """
    answers = work.answers
    sent_s = [one.sent_s for one in answers if one.sent_s is not None]
    ended_s = [one.ended_s for one in answers if one.ended_s is not None]
    first_s = [one.first_token_s for one in answers if one.first_token_s is not None]
    prompt_tokens = [one.told_prompt_tokens for one in answers if one.sent_s is not None]
    known_tokens = [tokens for tokens in prompt_tokens if tokens is not None]
    end_s = max(ended_s, default=finished_s)
    is_told = all(one.token_source is TokenSource.USAGE for one in answers if one.chunks)
    return RunReport(
        started_at=_time(started_s + unix_offset_s),
        finished_at=_time(end_s + unix_offset_s),
        inference_seconds=round(end_s - min(sent_s), 6) if sent_s else None,
        prompt_tokens=sum(known_tokens) if known_tokens and len(known_tokens) == len(prompt_tokens) else None,
        output_tokens=sum(one.output_tokens for one in answers) if sent_s else None,
        token_source=(TokenSource.USAGE if is_told else TokenSource.CHUNKS) if sent_s else None,
        time_to_first_token_seconds=round(sum(first_s) / len(first_s), 6) if first_s else None,
        problem=cut_problem(work.problem),
    )


def cut_problem(problem: str) -> str | None:
    """Return a problem in one line that leaves room for the rest of the report; None for none."""
    return " ".join(problem.split())[:MAX_PROBLEM_CHARACTERS] or None


def answer_line(index: int, answer: Answer) -> bytes:
    """Return an answer as one line of JSON."""
    return orjson.dumps(answer.to_object(index), option=orjson.OPT_APPEND_NEWLINE)


def join_texts(answers: Sequence[Answer]) -> str:
    """Return the texts one after the other, with an empty line between them."""
    return "\n\n".join(answer.text for answer in answers if answer.text)


def fit_report(report: RunReport, text: str, limit_bytes: int) -> str:
    """Return the report as JSON with as much of the text as fits."""
    if not text:
        return report.to_text()

    def with_text(length: int) -> str:
        cut = {"text": text[:length], "truncated": True if length < len(text) else None}
        return report.model_copy(update=cut).to_text()

    lengths = range(min(len(text), MAX_REPORT_LENGTH) + 1)
    length = bisect_right(lengths, limit_bytes, key=lambda one: len(with_text(one).encode())) - 1
    return with_text(max(length, 0))


def fit_answers(answers: Sequence[Answer], limit_bytes: int | None = None) -> bytes:
    """Return the answers as JSON lines; texts are cut to one length if they do not fit otherwise.

    Raises:
        ResultError: they do not fit even without their texts.
    """
    objects = [answer.to_object(index) for index, answer in enumerate(answers)]

    def with_texts(length: int) -> bytes:
        cut = (
            one if len(one["text"]) <= length else {**one, "text": one["text"][:length], "truncated": True}
            for one in objects
        )
        return b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in cut)

    longest = max(len(one["text"]) for one in objects)
    whole = with_texts(longest)
    if limit_bytes is None or len(whole) <= limit_bytes:
        return whole
    length = bisect_right(range(longest + 1), limit_bytes, key=lambda one: len(with_texts(one))) - 1
    if length < 0:
        raise ResultError(f"{len(answers)} answers do not fit into {limit_bytes} bytes: write them to a file")
    return with_texts(length)


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
