"""The run report: what a container says about its own run in its termination message."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from perllm.api.base import MAX_TOKENS, Resource
from perllm.text import clean_line, clean_text

# Kubernetes truncates termination messages at 4096 bytes.
MAX_REPORT_LENGTH = 4096
MAX_RUN_S = 7 * 24 * 3600.0
MAX_PROBLEM_LENGTH = 1024


class TokenSource(StrEnum):
    """Where a number of tokens comes from."""

    USAGE = "usage"
    CHUNKS = "chunks"


def _require_text(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError("must be an RFC 3339 time")
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_require_text)]
_Seconds = Annotated[FiniteFloat, Field(strict=True, ge=0, le=MAX_RUN_S)]
_Tokens = Annotated[int, Field(strict=True, ge=0, le=MAX_TOKENS)]


class RunReport(Resource):
    """What a workload measured about its own run, and its result; every field is optional.

    Inference took the last ``inference_seconds`` before ``finished_at``. Token counts are those that the model server
    reported (usage), or the number of pieces in its stream (chunks), each of which may hold several tokens. The time to
    the first token is the mean over all ``prompts``, one if their number is missing; up to ``concurrency`` of them were
    asked at a time, one if that is missing. ``text`` is as much of the answer as fits, ``result`` says where the full
    answer is, and ``problem`` what went wrong.
    """

    started_at: _Time | None = None
    finished_at: _Time | None = None
    transfer_seconds: _Seconds | None = None
    inference_seconds: _Seconds | None = None
    prompt_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    token_source: TokenSource | None = None
    time_to_first_token_seconds: _Seconds | None = None
    prompts: _Tokens | None = None
    concurrency: _Tokens | None = None
    problem: Annotated[str, Field(max_length=MAX_PROBLEM_LENGTH)] | None = None
    result: Annotated[str, Field(max_length=256)] | None = None
    truncated: bool | None = None
    text: Annotated[str, Field(max_length=MAX_REPORT_LENGTH)] | None = None

    def to_text(self) -> str:
        """Return the report as the JSON that a workload writes."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def inference_window(self) -> tuple[float, float] | None:
        """Return start and end of the inference in seconds since the epoch; None if the report does not say."""
        if self.finished_at is None or self.inference_seconds is None:
            return None
        end_s = self.finished_at.timestamp()
        return end_s - self.inference_seconds, end_s


def parse_run_report(text: str | None) -> RunReport | None:
    """Return the report in a termination message, or None if there is none.

    Impossible values (negative, not finite, absurdly large, of the wrong type) are dropped and unknown fields ignored.
    The report may follow log lines. Texts are cleaned, and a long problem is truncated.
    """
    values = _parse_object(text)
    if values is None:
        return None
    report = _clean(_drop_contradictions(_validate(_cut_problem(values))))
    return report if report.model_fields_set else None


def _parse_object(text: str | None) -> dict[str, Any] | None:
    if not text or len(text) > MAX_REPORT_LENGTH:
        return None
    for candidate in (text, text.strip().rpartition("\n")[2]):
        try:
            value = from_json(candidate)
        except ValueError:
            continue
        return value if isinstance(value, dict) else None
    return None


def _cut_problem(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with a problem short enough to validate: its beginning is better than nothing."""
    problem = values.get("problem")
    return {**values, "problem": clean_line(problem)} if isinstance(problem, str) else values


def _validate(values: dict[str, Any]) -> RunReport:
    try:
        return RunReport.model_validate(values)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False, include_context=False)}
    # A field that is given in both spellings may be wrong in both: without the one, the other one counts.
    return _validate({key: value for key, value in values.items() if key not in wrong})


def _clean(report: RunReport) -> RunReport:
    update = {
        "result": None if report.result is None else clean_line(report.result),
        "text": None if report.text is None else clean_text(report.text, MAX_REPORT_LENGTH),
    }
    return report.model_copy(update={name: text for name, text in update.items() if text is not None})


def _drop_contradictions(report: RunReport) -> RunReport:
    if report.started_at is None or report.finished_at is None or report.started_at <= report.finished_at:
        return report
    kept = report.model_fields_set - {"started_at", "finished_at"}
    return RunReport.model_validate({name: getattr(report, name) for name in kept})
