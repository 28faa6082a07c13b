import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.api.report import RunReport, parse_run_report

REPORT = {
    "startedAt": "2026-01-01T00:00:00.000000Z",
    "finishedAt": "2026-01-01T00:00:10.500000Z",
    "transferSeconds": 1,
    "inferenceSeconds": 4.5,
    "promptTokens": 100,
    "outputTokens": 20,
    "tokenSource": "usage",
    "timeToFirstTokenSeconds": 0.5,
    "problem": "stopped",
    "result": "configmap:answers",
    "truncated": True,
    "text": "42",
}


def test_report_tells_the_inference_window() -> None:
    report = parse_run_report(json.dumps(REPORT))

    assert report is not None
    end_s = datetime(2026, 1, 1, 0, 0, 10, 500000, tzinfo=UTC).timestamp()
    assert report.inference_window() == (end_s - 4.5, end_s)
    assert parse_run_report(report.to_text()) == report


def test_report_may_follow_log_lines() -> None:
    assert parse_run_report('loading\n{"outputTokens": 3}\n') == RunReport(output_tokens=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inferenceSeconds", -1),
        ("inferenceSeconds", float("nan")),
        ("inferenceSeconds", 1e12),
        ("inferenceSeconds", "4"),
        ("inferenceSeconds", True),
        ("outputTokens", 1.5),
        ("outputTokens", 10**12),
        ("finishedAt", 1700000000),
        ("finishedAt", "2026-01-01T00:00:10"),
        ("tokenSource", "guess"),
        ("timeToFirstTokenSeconds", -1),
        ("result", "x" * 300),
        ("text", 42),
    ],
)
def test_impossible_field_is_left_out_and_the_rest_kept(field: str, value: Any) -> None:
    report = parse_run_report(json.dumps({**REPORT, field: value, "unknown": 1}))

    expected = {key: entry for key, entry in REPORT.items() if key != field}
    assert report == RunReport.model_validate(expected)


def test_a_field_in_both_spellings_counts_where_it_is_possible() -> None:
    assert parse_run_report('{"outputTokens": -1, "output_tokens": 3}') == RunReport(output_tokens=3)
    assert parse_run_report('{"startedAt": 5, "started_at": "?", "text": "a"}') == RunReport(text="a")


def test_of_a_problem_without_end_the_beginning_is_kept() -> None:
    report = parse_run_report(json.dumps({**REPORT, "problem": "\x1b[1mout of memory" + "!" * 2000}))

    assert report is not None
    assert report.problem is not None
    assert report.problem.startswith("out of memory!")
    assert len(report.problem) <= 1024


def test_times_in_the_wrong_order_are_left_out() -> None:
    report = parse_run_report(json.dumps({**REPORT, "startedAt": "2027-01-01T00:00:00Z"}))

    assert report is not None
    assert report.inference_window() is None
    assert report.output_tokens == 20


@pytest.mark.parametrize(
    "text", [None, "", "  ", "Error", "[]", "{}", "1", "[" * 4000, "{" * 4000, '{"a": 1}', "x" * 10**6]
)
def test_rubbish_is_no_report(text: str | None) -> None:
    assert parse_run_report(text) is None


JSON_VALUES = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["", "NaN", "2026-01-01", "9" * 30])
)


@given(st.dictionaries(st.sampled_from(sorted([*REPORT, *RunReport.model_fields])), JSON_VALUES))
def test_no_termination_message_can_raise(values: dict[str, Any]) -> None:
    parse_run_report(json.dumps(values))
