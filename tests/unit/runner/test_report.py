import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.api.base import MAX_TOKENS
from perllm.api.report import MAX_REPORT_LENGTH, RunReport, TokenSource, parse_run_report
from perllm.completions.answer import Answer
from perllm.runner.cli import MIN_REPORT_LENGTH
from perllm.runner.errors import ResultError
from perllm.runner.prompts import Prompt
from perllm.runner.report import fit_answers, fit_report, join_texts, summarise
from perllm.runner.work import Work
from perllm.text import clean_text

PROMPT = Prompt(messages=({"role": "user", "content": "Hi"},))
UNIX_OFFSET_S = 1_000_000.0


def answered(text: str, sent_s: float, first_s: float, ended_s: float, tokens: int | None = 5) -> Answer:
    return Answer(
        pieces=[text],
        chunks=3,
        sent_s=sent_s,
        first_s=first_s,
        ended_s=ended_s,
        reported_prompt_tokens=None if tokens is None else 10,
        reported_output_tokens=tokens,
        finish_reason="stop",
        problem="",
    )


def work_of(*answers: Answer, problem: str = "") -> Work:
    work = Work([PROMPT] * len(answers))
    work.answers = list(answers)
    work.problem = problem
    return work


def report_of(work: Work, *, concurrency: int = 1) -> RunReport:
    return summarise(work, concurrency=concurrency, started_s=1.0, finished_s=30.0, unix_offset_s=UNIX_OFFSET_S)


def test_report_tells_the_window_of_all_answers_and_adds_up_their_tokens() -> None:
    report = report_of(work_of(answered("a", 2.0, 3.0, 10.0), answered("b", 5.0, 5.5, 20.0)))

    assert report.inference_window() == (UNIX_OFFSET_S + 2.0, UNIX_OFFSET_S + 20.0)
    assert report.started_at is not None
    assert report.started_at.timestamp() == UNIX_OFFSET_S + 1.0
    assert (report.prompt_tokens, report.output_tokens, report.token_source) == (20, 10, TokenSource.USAGE)
    assert report.time_to_first_token_seconds == 0.75


@pytest.mark.parametrize(("concurrency", "said"), [(1, None), (2, 2), (8, 2)])
def test_report_says_how_many_prompts_were_asked_at_a_time(concurrency: int, said: int | None) -> None:
    work = work_of(answered("a", 2.0, 3.0, 10.0), answered("b", 2.0, 3.0, 10.0))
    assert report_of(work, concurrency=concurrency).concurrency == said


def test_counted_tokens_are_said_to_be_counted_and_prompt_tokens_left_out() -> None:
    report = report_of(work_of(answered("a", 2.0, 3.0, 10.0), answered("b", 2.0, 3.0, 10.0, tokens=None)))

    assert (report.prompt_tokens, report.output_tokens, report.token_source) == (None, 8, TokenSource.CHUNKS)


def test_an_answer_that_came_at_once_and_without_usage_has_no_number_of_tokens() -> None:
    whole = answered("a", 2.0, 3.0, 10.0, tokens=None)
    whole.is_streamed = False

    report = report_of(work_of(whole, answered("b", 2.0, 3.0, 10.0)))

    assert (report.output_tokens, report.token_source) == (None, None)


def test_nothing_is_made_up_for_prompts_that_were_not_sent() -> None:
    report = report_of(work_of(Answer(), problem="no answer"))

    assert report.model_dump(exclude_none=True).keys() == {"started_at", "finished_at", "problem"}


# As the runner hands texts on: it cleans them first, and so does whoever reads the report.
CLEAN_TEXTS = st.text(max_size=6000).map(lambda text: clean_text(text, 6000))


@given(CLEAN_TEXTS, st.integers(MIN_REPORT_LENGTH, MAX_REPORT_LENGTH))
def test_report_fits_and_keeps_as_much_of_the_text_as_it_can(text: str, limit_bytes: int) -> None:
    written = fit_report(RunReport(output_tokens=3), text, limit_bytes)

    report = parse_run_report(written)
    assert report is not None
    assert report.output_tokens == 3
    assert len(written.encode()) <= limit_bytes
    kept = report.text or ""
    assert text.startswith(kept)
    assert (kept == text) == (not report.truncated)
    assert kept == text or len(written.encode()) > limit_bytes - 12


@pytest.mark.parametrize("limit_bytes", [MIN_REPORT_LENGTH, MAX_REPORT_LENGTH])
@pytest.mark.parametrize("sign", ["\N{GRINNING FACE}", "\1", '"'])
def test_report_with_the_longest_problem_still_fits_and_has_room_for_text(sign: str, limit_bytes: int) -> None:
    report = report_of(work_of(answered("a", 2.0, 3.0, 10.0), problem=sign * 5000))
    report = report.model_copy(update={"result": "file:/" + "x" * 250})

    written = fit_report(report, "x" * 5000, limit_bytes)

    kept = parse_run_report(written)
    assert kept is not None
    assert len(written.encode()) <= limit_bytes
    assert kept.output_tokens == 5
    assert kept.text
    assert kept.truncated


def test_more_tokens_than_a_report_may_tell_are_left_out() -> None:
    report = report_of(work_of(*(answered("a", 2.0, 3.0, 10.0, tokens=MAX_TOKENS) for _ in range(2))))

    assert (report.output_tokens, report.prompt_tokens) == (None, 20)


def test_answers_are_one_json_object_per_line() -> None:
    lines = fit_answers([answered("a\nb", 2.0, 3.0, 10.0), Answer()]).decode().splitlines()

    assert [json.loads(line) for line in lines] == [
        {
            "index": 0,
            "text": "a\nb",
            "finishReason": "stop",
            "promptTokens": 10,
            "outputTokens": 5,
            "tokenSource": "usage",
            "timeToFirstTokenSeconds": 1.0,
            "inferenceSeconds": 8.0,
        },
        {"index": 1, "text": "", "outputTokens": 0, "tokenSource": "chunks", "problem": "was not asked"},
    ]


def test_answers_that_do_not_fit_are_cut_to_one_length() -> None:
    answers = [answered("x" * 1000, 2.0, 3.0, 10.0), answered("y" * 10, 2.0, 3.0, 10.0)]

    content = fit_answers(answers, 600)

    first, second = (json.loads(line) for line in content.splitlines())
    assert 590 <= len(content) <= 600
    assert (first["truncated"], "truncated" in second) == (True, False)


def test_long_problems_of_some_answers_do_not_cost_the_others() -> None:
    answers = [Answer(problem="the server said " + "x" * 700) for _ in range(10)] + [answered("y", 2.0, 3.0, 10.0)]

    lines = [json.loads(line) for line in fit_answers(answers, 2500).splitlines()]

    assert all(line["problem"].startswith("the server said xx") for line in lines[:-1])
    assert lines[-1]["text"] == "y"


def test_too_many_answers_are_refused_with_advice() -> None:
    with pytest.raises(ResultError, match="write them to a file"):
        fit_answers([Answer() for _ in range(100)], 600)


def test_a_report_holds_nothing_that_a_terminal_would_obey() -> None:
    work = work_of(answered("\x1b[2Ja\r\nb\x9b", 0, 0, 0), problem="\x1b[31mthe server\nsaid")

    assert join_texts(work.answers) == "a\nb"
    assert report_of(work).problem == "the server said"


def test_texts_of_several_answers_follow_one_another() -> None:
    assert join_texts([answered("a", 0, 0, 0), Answer(), answered("b", 0, 0, 0)]) == "a\n\nb"
