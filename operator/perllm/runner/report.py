"""Builds what the runner reports: the run report for the operator, and the answers, both truncated to fit."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from perllm.api.base import MAX_TOKENS
from perllm.api.report import RunReport, TokenSource
from perllm.cluster.times import to_time
from perllm.completions.answer import Answer
from perllm.runner.errors import ResultError
from perllm.runner.prompts import Prompt
from perllm.runner.work import Work
from perllm.text import clean_line, clean_text, cut

MAX_PROBLEM_CHARACTERS = 500

KEPT_PROBLEM_CHARACTERS = 80
"""What is kept of the problem of each answer, however little room there is."""


def summarise(work: Work, *, concurrency: int, started_s: float, finished_s: float, unix_offset_s: float) -> RunReport:
    """Return the measurements, without any text; sums that are too large for a report are left out.

    They are those of this run: answers that an earlier one has left do not count.

    Args:
        work: the work that was done.
        concurrency: how many prompts were asked at a time, if there were as many.
        started_s: when the runner started; monotonic, like all times of answers.
        finished_s: when it finished.
        unix_offset_s: difference between Unix time and the monotonic clock.
    """
    answers = [answer for index, answer in enumerate(work.answers) if index not in work.kept]
    sent = [one for one in answers if one.sent_s is not None]
    sent_s = [one.sent_s for one in answers if one.sent_s is not None]
    ended_s = [one.ended_s for one in answers if one.ended_s is not None]
    first_s = [one.first_token_s for one in answers if one.first_token_s is not None]
    end_s = max(ended_s, default=finished_s)
    # Where nothing was left to ask, it is known that nothing was written: nothing must be learned from the time.
    output_tokens = 0 if not answers else _add_up(one.output_tokens for one in sent)
    is_reported = {one.token_source for one in answers if one.chunks} == {TokenSource.USAGE}
    return RunReport(
        started_at=to_time(started_s + unix_offset_s),
        finished_at=to_time(end_s + unix_offset_s),
        inference_seconds=round(end_s - min(sent_s), 6) if sent_s else None,
        prompt_tokens=_add_up(one.reported_prompt_tokens for one in sent),
        output_tokens=output_tokens,
        token_source=None if output_tokens is None else TokenSource.USAGE if is_reported else TokenSource.CHUNKS,
        time_to_first_token_seconds=round(sum(first_s) / len(first_s), 6) if first_s else None,
        prompts=len(work.prompts) if len(work.prompts) > 1 else None,
        concurrency=together if (together := min(concurrency, len(answers))) > 1 else None,
        problem=cut_problem(work.problem),
    )


def cut_problem(problem: str) -> str | None:
    """Return a problem as one line, truncated; None if there is none."""
    return clean_line(problem, MAX_PROBLEM_CHARACTERS) or None


def answer_line(index: int, answer: Answer) -> bytes:
    """Return an answer as one line of JSON."""
    return orjson.dumps(answer.to_object(index), option=orjson.OPT_APPEND_NEWLINE)


def join_texts(answers: Sequence[Answer]) -> str:
    """Return the texts separated by empty lines, without terminal control sequences."""
    text = "\n\n".join(answer.text for answer in answers if answer.text)
    return clean_text(text, len(text))


def fit_report(report: RunReport, text: str, limit_bytes: int) -> str:
    """Return the report as JSON: its problem is truncated to half of the limit, then the text to what is left."""
    problem = report.problem or ""

    def with_problem(length: int) -> RunReport:
        return report.model_copy(update={"problem": problem[:length] or None})

    def with_text(length: int) -> RunReport:
        cut = {"text": text[:length], "truncated": True if length < len(text) else None}
        return report.model_copy(update=cut)

    report = _fit(with_problem, len(problem), limit_bytes // 2)
    return (_fit(with_text, len(text), limit_bytes) if text else report).to_text()


def _fit(with_length: Callable[[int], RunReport], longest: int, limit_bytes: int) -> RunReport:
    lengths = range(min(longest, limit_bytes) + 1)
    length = bisect_right(lengths, limit_bytes, key=lambda one: len(with_length(one).to_text().encode())) - 1
    return with_length(max(length, 0))


def fit_answers(answers: Sequence[Answer], limit_bytes: int | None = None) -> bytes:
    """Return the answers as JSON lines; if they do not fit, all texts and problems are truncated to the same length.

    Raises:
        ResultError: they do not fit even without texts.
    """
    objects = [answer.to_object(index) for index, answer in enumerate(answers)]

    def with_texts(length: int) -> bytes:
        return b"".join(orjson.dumps(_shorten(one, length), option=orjson.OPT_APPEND_NEWLINE) for one in objects)

    longest = max(max(len(one["text"]), len(one.get("problem", ""))) for one in objects)
    whole = with_texts(longest)
    if limit_bytes is None or len(whole) <= limit_bytes:
        return whole
    length = bisect_right(range(longest + 1), limit_bytes, key=lambda one: len(with_texts(one))) - 1
    if length < 0:
        raise ResultError(f"{len(answers)} answers do not fit into {limit_bytes} bytes: write them to a file")
    return with_texts(length)


def _shorten(line: dict[str, Any], length: int) -> dict[str, Any]:
    text, problem = line["text"], line.get("problem", "")
    shorter = {} if len(text) <= length else {"text": text[:length], "truncated": True}
    kept = max(length, KEPT_PROBLEM_CHARACTERS)
    return {**line, **shorter, **({"problem": cut(problem, kept)} if len(problem) > kept else {})}


def check_room(prompts: Sequence[Prompt], limit_bytes: int) -> None:
    """Make sure that answers to these prompts will fit into so many bytes, however short their texts may become.

    Raises:
        ResultError: they will not.
    """
    usual = Answer(
        pieces=["x"],
        sent_s=0.0,
        first_s=0.123456,
        ended_s=1.234567,
        reported_prompt_tokens=100,
        reported_output_tokens=100,
        finish_reason="stop",
        problem="",
    )
    fit_answers([replace(usual, prompt_id=prompt.id) for prompt in prompts], limit_bytes)


def _add_up(tokens: Iterable[int | None]) -> int | None:
    """Return the sum; None if a number is unknown, if there are none, or if the sum is too large for a report."""
    counts = list(tokens)
    known = [count for count in counts if count is not None]
    total = sum(known)
    return total if 0 < len(known) == len(counts) and total <= MAX_TOKENS else None
