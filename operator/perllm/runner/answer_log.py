"""The answers so far, in a file next to that of the result, so that a run that dies does not lose them.

Each answer is appended as it ends, as one line of JSON with the fingerprint of its request, so it outlives the process;
a machine that fails loses what it has not written to its disk. The result is written at the end (result.py).
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from perllm.api.report import TokenSource
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest

log = logging.getLogger(__name__)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", alias_generator=to_camel)

    index: int
    request: str
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    token_source: TokenSource | None = None
    time_to_first_token_seconds: float | None = None
    inference_seconds: float | None = None
    problem: str | None = None

    def to_answer(self) -> Answer:
        """Return the answer as it was; of its times only the differences are known."""
        is_reported = self.token_source is TokenSource.USAGE
        return Answer(
            pieces=[self.text],
            chunks=self.output_tokens or 1,
            sent_s=0.0,
            first_s=self.time_to_first_token_seconds,
            ended_s=self.inference_seconds,
            reported_prompt_tokens=self.prompt_tokens,
            reported_output_tokens=self.output_tokens if is_reported else None,
            finish_reason=self.finish_reason,
            problem="",
            is_streamed=self.token_source is not None,
        )


class AnswerLog:
    """The file with the answers so far.

    Args:
        result: the file of the result.
        requests: what is asked for each prompt.
    """

    def __init__(self, result: Path, requests: Sequence[ChatRequest]) -> None:
        self._path = result.with_name(f".{result.name}.partial")
        self._fingerprints = [_find_fingerprint(request) for request in requests]
        self._file: BinaryIO | None = None

    def read(self) -> dict[int, Answer]:
        """Return the complete answers that an earlier run has left to the same requests, by the index of the prompt."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("%s cannot be read, so all prompts are asked: %s", self._path, error)
            return {}
        lines = [line for text in content.splitlines() if (line := _read_line(text)) is not None]
        return {line.index: line.to_answer() for line in lines if self._is_kept(line)}

    def begin(self, *, keeps: bool) -> None:
        """Open the file; `keeps` if what is in it remains."""
        try:
            self._file = self._path.open("ab" if keeps else "wb", buffering=0)
            if keeps:
                self._file.write(b"\n")  # the last line may have been cut off
        except OSError as error:
            self._give_up(error)

    def note(self, index: int, answer: Answer) -> None:
        """Append an answer that has ended."""
        if self._file is None:
            return
        line = {**answer.to_object(index), "request": self._fingerprints[index]}
        try:
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            self._give_up(error)

    def end(self, *, is_done: bool) -> None:
        """Close the file, and remove it if the result has all answers."""
        if self._file is not None:
            self._file.close()
        if is_done:
            self._path.unlink(missing_ok=True)

    def _is_kept(self, line: _Line) -> bool:
        is_known = 0 <= line.index < len(self._fingerprints)
        return is_known and line.problem is None and line.request == self._fingerprints[line.index]

    def _give_up(self, error: OSError) -> None:
        log.warning("%s cannot be written, so the answers are kept in memory only: %s", self._path, error)
        self._file = None


def _read_line(text: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None


def _find_fingerprint(request: ChatRequest) -> str:
    content = orjson.dumps(request.to_body({}), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]
