"""How a line of the output is written: PerLLM's own format, or that of OpenAI's Batch API."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from perllm.submission.answers import AnswerLine

ERROR_CODES = {"Rejected": "task_rejected", "Failed": "task_failed", None: "task_deleted"}


class LineFormat(Protocol):
    """Writes and reads lines.

    Attributes:
        start: how every line begins.
    """

    start: bytes

    def encode(self, line: AnswerLine) -> bytes:
        """Return a line, with its end."""

    def decode(self, content: bytes) -> AnswerLine:
        """Return what a line says, possibly without its text.

        Raises:
            ValidationError: it is no such line.
        """


class PlainFormat:
    """The fields of a line as one JSON object."""

    start = b'{"index":'

    def encode(self, line: AnswerLine) -> bytes:
        """Return a line, with its end."""
        return orjson.dumps(line.to_object(), option=orjson.OPT_APPEND_NEWLINE)

    def decode(self, content: bytes) -> AnswerLine:
        """Return what a line says."""
        return AnswerLine.model_validate_json(content)


class _StoredLine(BaseModel):
    perllm: AnswerLine


class OpenAiFormat:
    """A line of the output file of OpenAI's Batch API; its further field ``perllm`` has what that has no place for.

    Args:
        models: the model of each task, by its name.
    """

    start = b'{"id":'

    def __init__(self, models: Mapping[str, str]) -> None:
        self._models = models

    def encode(self, line: AnswerLine) -> bytes:
        """Return a line, with its end."""
        rest = line.model_copy(update={"text": None})
        record = {
            "id": line.task,
            "custom_id": str(line.index) if line.id is None else line.id,
            "response": _respond(line, self._models[line.task]) if line.is_answered else None,
            "error": None if line.is_answered else {"code": ERROR_CODES[line.phase], "message": line.problem},
            "perllm": rest.to_object(),
        }
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)

    def decode(self, content: bytes) -> AnswerLine:
        """Return what a line says, without its text."""
        return _StoredLine.model_validate_json(content).perllm


def _respond(line: AnswerLine, model: str) -> dict[str, Any]:
    prompt, output = line.prompt_tokens, line.output_tokens
    total = None if prompt is None or output is None else prompt + output
    created = None if line.completion_time is None else int(line.completion_time.timestamp())
    message = {"role": "assistant", "content": line.text}
    body = {
        "id": line.task,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": line.finish_reason}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": total},
    }
    return {"status_code": 200, "request_id": line.task, "body": body}
