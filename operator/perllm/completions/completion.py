"""Parses a chat completion, streamed in parts or complete.

Servers differ in details, so the parser is lenient: it looks for text, reasoning, usage, the finish reason, and
failures, which many servers report with status 200.
"""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from perllm.api.base import MAX_TOKENS
from perllm.completions.answer import Answer
from perllm.completions.errors import (
    GENERATION_FAILED,
    NOT_READY,
    TOO_MANY_REQUESTS,
    CompletionError,
    NotAPartError,
    PromptRejectedError,
    ServerFailedError,
    UnavailableError,
)
from perllm.text import clean_line, clean_text

MAX_WORDS = 4000
"""Characters of a server's error message that are read; the key is removed from them before they are shortened."""

MAX_ANSWER_CHARACTERS = 16 * 2**20
"""No answer is that long; the limit keeps a server that never ends an answer from filling the memory."""

REFUSALS = ("content_filter", "safety", "refus", "prohibited", "blocklist", "sensitive", "recitation")
FAILURES = ("error", "abort", "cancel", "fail", "timeout", "interrupt", "overload", "unavailable", "insufficient")
"""Parts of finish reasons that mean that an answer was withheld, or is incomplete."""

NO_REASONS = ("", "null", "none")
BUSY = ("overloaded", "rate_limit", "unavailable")
"""Parts of the codes and types of errors that mean that the request was not accepted."""

UNFIT = ("invalid_request", "validation")
"""Parts of the codes and types of errors that are about this prompt, so that others may succeed."""

_ERROR_WORDS = ("message", "detail", "msg", "error_message", "error_description", "reason")

Values = Mapping[str, Any]
_Read = TypeVar("_Read")


class Reading:
    """Reads one answer.

    Args:
        answer: the answer that is filled in.
        now: monotonic clock, in seconds.
    """

    def __init__(self, answer: Answer, now: Callable[[], float]) -> None:
        self._answer = answer
        self._now = now
        self._length = 0
        self._is_refused = False
        # A piece may end between the two surrogates of a character.
        self._halves = codecs.getincrementaldecoder("utf-16-le")("replace")

    def take_part(self, content: bytes) -> str:
        """Read one part of a stream; return its text.

        Raises:
            CompletionError: it reports a failure, or is not part of a completion.
        """
        answer, values = self._answer, read_object(content)
        choice = _first_choice(values)
        delta = choice.get("delta") or choice.get("message") or choice
        text, has_thought = _read_text(delta)
        piece = self._halves.decode(text.encode("utf-16-le", "surrogatepass"))
        self._length += len(piece)
        if self._length > MAX_ANSWER_CHARACTERS:
            raise PromptRejectedError(f"the server gave an answer of more than {MAX_ANSWER_CHARACTERS} characters")
        if text or has_thought:
            answer.first_s = self._now() if answer.first_s is None else answer.first_s
            answer.chunks += 1
            answer.pieces.append(piece)
            answer.reported_output_tokens = None  # an earlier report does not include this piece
        if delta is choice.get("message"):
            self._note_whole()
        self._is_refused = self._is_refused or _has_refusal(delta)
        self._take_rest(values, choice)
        return piece

    def take_whole(self, content: bytes) -> str:
        """Read a completion that was not streamed; return its text.

        Raises:
            CompletionError: it reports a failure, or is not a completion.
        """
        text = self.take_part(content)
        self._note_whole()
        return text

    def end(self) -> str:
        """Check that the answer is complete; return the rest of its text.

        Raises:
            CompletionError: it is incomplete or empty; the message says why.
        """
        answer = self._answer
        rest = self._halves.decode(b"", final=True)
        answer.pieces.append(rest)
        reason = (answer.finish_reason or "").lower()
        if any(part in reason for part in REFUSALS):
            raise PromptRejectedError(f"the server withheld the answer, finish reason {reason}")
        if any(part in reason for part in FAILURES):
            raise ServerFailedError(f"the server aborted the answer, finish reason {reason}")
        if not reason:
            raise ServerFailedError("the server ended the answer without a finish reason, so it may be incomplete")
        if self._is_refused and not answer.text.strip():
            raise PromptRejectedError("the model refused to answer")
        if not answer.chunks:
            raise PromptRejectedError(f"the server gave an empty answer, finish reason {reason}")
        if not clean_text(answer.text, len(answer.text)).strip():
            message = (
                f"the answer has no text, finish reason {reason}; if it is length, a larger limit of tokens may help"
            )
            raise PromptRejectedError(message)
        answer.problem = ""
        return rest

    def _note_whole(self) -> None:
        """Note that the answer came at once, so the time of its first token and the pieces say nothing."""
        self._answer.is_streamed = False
        self._answer.first_s = None

    def _take_rest(self, values: Values, choice: Values) -> None:
        answer = self._answer
        reason = choice.get("finish_reason")
        if isinstance(reason, dict):
            reason = reason.get("type")
        if isinstance(reason, str) and reason.lower() not in NO_REASONS:
            answer.finish_reason = clean_line(reason, 100)
        usage = values.get("usage")
        if isinstance(usage, dict):
            answer.reported_prompt_tokens = _read_count(usage.get("prompt_tokens")) or answer.reported_prompt_tokens
            answer.reported_output_tokens = _read_count(usage.get("completion_tokens")) or answer.reported_output_tokens


def read_object(content: bytes) -> Values:
    """Return the object that a server sent.

    Raises:
        CompletionError: it reports a failure, or is not an object.
    """
    try:
        values = _load(content)
        if not isinstance(values, dict):
            raise _not_a_part(content)
        failure = _find_failure(values)
        if failure is not None:
            raise _describe(failure)
    except (ValueError, RecursionError) as error:
        raise _not_a_part(content) from error
    return values


def read_failure(content: bytes) -> CompletionError:
    """Return the error for what a server sent as an error, with the server's message."""
    return _interpret(content, _describe)


def find_words(content: bytes) -> str:
    """Return the message for people in an unsuccessful answer, as one line; empty if there is none."""
    return _interpret(content, _find_words)


def _interpret(content: bytes, read: Callable[[object], _Read]) -> _Read:
    """Read what a server sent: the value if it is JSON, else the text."""
    try:
        return read(_load(content))
    except (ValueError, RecursionError):
        return read(content.decode(errors="replace"))


def _load(content: bytes) -> Any:
    """Return the JSON value; if it is a list of one, as Google's servers send errors, what is in it."""
    value = json.loads(content.decode(errors="replace").lstrip("\ufeff"))
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _describe(failure: object) -> CompletionError:
    message = f"the server reported an error: {_find_words(failure)}"
    codes = set(_find_codes(failure))
    if any(code in map(str, NOT_READY) or any(part in code for part in BUSY) for code in codes):
        return UnavailableError(message, is_full=str(TOO_MANY_REQUESTS) in codes)
    is_unfit = any(code[:1] == "4" and len(code) == 3 and code.isdecimal() for code in codes)
    is_unfit = is_unfit or any(part in code for code in codes for part in UNFIT)
    has_failed = not is_unfit or str(GENERATION_FAILED) in codes
    return (ServerFailedError if has_failed else PromptRejectedError)(message)


def _find_codes(failure: object) -> Iterator[str]:
    """Yield what says of which kind an error is: numbers, and words in lower case."""
    keys = ("code", "status", "status_code", "http_status_code", "type", "error_type")
    while isinstance(failure, dict):
        yield from (str(failure[key]).lower() for key in keys if key in failure)
        failure = failure.get("error")


def _find_words(failure: object) -> str:
    """Return the message for people in an error; the whole error if it has no known form."""
    words = failure
    while isinstance(words, dict):
        inner = next((words[key] for key in ("error", *_ERROR_WORDS) if words.get(key)), None)
        if inner is None:
            break
        words = inner
    return clean_line(words if isinstance(words, str) else json.dumps(words), MAX_WORDS)


def _find_failure(values: Values) -> object:
    """Return the part that reports a failure; None if there is none."""
    error = values.get("error")
    if isinstance(error, str) and error:
        return values  # what kind of error it is may be next to it
    if error or error == {}:
        return error
    if "error" in (values.get("object"), values.get("type")):
        return values
    if not values.keys() & {"choices", "usage"} and values.keys() & {*_ERROR_WORDS, "errors"}:
        return values
    return _first_choice(values).get("error") or None


def _first_choice(values: Values) -> Values:
    choices = values.get("choices")
    if not choices:
        return {}
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise _not_a_part()
    return choices[0]


def _read_text(delta: object) -> tuple[str, bool]:
    """Return the text in a part of an answer, and whether it contains reasoning."""
    if not isinstance(delta, dict):
        raise _not_a_part()
    content = delta.get("content") or delta.get("text") or ""
    if isinstance(content, str):
        return content, bool(delta.get("reasoning_content") or delta.get("reasoning"))
    if not isinstance(content, list) or not all(isinstance(part, dict | str) for part in content):
        raise _not_a_part()
    texts = list(_read_parts(content))
    return "".join(texts), len(texts) < len(content)


def _has_refusal(delta: Values) -> bool:
    """Whether the model says in a part of an answer that it does not answer."""
    parts = delta.get("content")
    in_parts = isinstance(parts, list) and any(isinstance(part, dict) and part.get("refusal") for part in parts)
    return bool(delta.get("refusal")) or in_parts


def _read_parts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        text = part if isinstance(part, str) else part.get("text")
        if isinstance(text, str):
            yield text


def _read_count(value: object) -> int | None:
    """Return a number of tokens; None if it is implausible, which includes zero."""
    return value if type(value) is int and 0 < value <= MAX_TOKENS else None


def _not_a_part(content: bytes = b"") -> CompletionError:
    """Return the error for something in a stream; of JSON nothing is quoted, since it may have text of the answer."""
    words = "" if content.lstrip().startswith((b"{", b"[")) else clean_line(content.decode(errors="replace"), 100)
    message = "the server sent something that is not part of a chat completion"
    return NotAPartError(f"{message}: {words}" if words else message)
