"""The prompts of a task, from arguments, files or standard input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Message = dict[str, Any]
MAX_PROMPTS = 100_000
PARAMETERS = {"max_tokens", "temperature", "top_p", "seed", "stop"}


class PromptError(Exception):
    """The prompts are invalid; the message names the line."""


def _wrap_text(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Prompt(BaseModel):
    """A prompt, and parameters that apply only to it.

    Attributes:
        messages: the conversation, in the format of the chat API.
        model: the model; None for that of the command line, as for the parameters.
        max_tokens: longest answer.
        temperature: sampling temperature.
        top_p: only the most probable tokens with this total probability are sampled.
        seed: seed of the sampling.
        stop: texts at which the answer ends.
        id: id that its answer will carry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    model: Annotated[str, Field(strict=True, min_length=1)] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_wrap_text), Field(min_length=1)] | None = None
    id: Annotated[str, Field(max_length=256)] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """How its answer is generated, by the names of the chat API; what is absent is that of the command line."""
        return self.model_dump(mode="json", include=PARAMETERS, exclude_none=True)


class BatchRequest(BaseModel):
    """A request in the format of OpenAI's Batch API, which asks a prompt in its body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    custom_id: str | None = None
    method: Literal["POST"] = "POST"
    url: Literal["/v1/chat/completions"] = "/v1/chat/completions"
    body: dict[str, Any]

    def to_prompt(self) -> dict[str, Any]:
        """Return the fields of a prompt."""
        body = dict(self.body)
        limit = body.get("max_completion_tokens")
        if body.get("max_tokens") in (None, limit):  # of two that differ one would be ignored, so it is refused
            body |= {"max_tokens": body.pop("max_completion_tokens", None)}
        return body if self.custom_id is None else {"id": self.custom_id, **body}


@dataclass(frozen=True, slots=True)
class PlacedPrompt:
    """A prompt, and where it was found.

    Attributes:
        place: in words, such as "a.jsonl, line 3,".
        prompt: the prompt.
    """

    place: str
    prompt: Prompt


KNOWN_FIELDS = ("prompt", *Prompt.model_fields)


def collect_prompts(
    texts: Sequence[str], files: Iterable[Path], stdin: BinaryIO | None, system: str | None, *, variables: str = ""
) -> tuple[Prompt, ...]:
    """Return all prompts: from environment variables, then from arguments, files and standard input.

    A file has one prompt per line; one that ends in ``.jsonl`` or ``.ndjson`` has one JSON object per line, one that
    ends in ``.json`` an array of them. An object has ``prompt`` or ``messages``, and may have ``id``, ``model`` and the
    parameters of the chat API that `Prompt` has; or it is a request of OpenAI's Batch API. Empty lines are ignored.

    Args:
        texts: prompts given as arguments.
        files: files with prompts, in UTF-8.
        stdin: one prompt per line, in UTF-8, or one object per line if the first one is; None if it is not to be read.
        system: system message for every prompt without messages of its own.
        variables: a prompt as a JSON object, from environment variables; empty for none.

    Raises:
        PromptError: a file cannot be read, a line is not a prompt, or there are no prompts or too many.
    """
    placed = chain(_read_variables(variables, system), read_prompts(texts, files, stdin, system))
    found = tuple(one.prompt for one in islice(placed, MAX_PROMPTS + 1))
    if not found:
        raise PromptError("there is no prompt: give --prompt, --prompt-file or prompts on standard input")
    if len(found) > MAX_PROMPTS:
        raise PromptError(f"there are too many prompts for one task: more than {MAX_PROMPTS}")
    return found


def read_prompts(
    texts: Sequence[str], files: Iterable[Path], stdin: BinaryIO | None, system: str | None
) -> Iterator[PlacedPrompt]:
    """Yield all prompts in the order of `collect_prompts`, which describes the arguments; there may be none.

    Raises:
        PromptError: a file cannot be read, or a line is not a prompt.
    """
    for number, text in enumerate(texts, start=1):
        if text.strip():
            yield _place(text, f"prompt {number} of the command line", system)
    for file in files:
        try:
            with file.open("rb") as stream:
                yield from _read_file(stream, file, system)
        except OSError as error:
            raise PromptError(f"{file} cannot be read: {error}") from error
    if stdin is not None:
        yield from _read_stdin(stdin, system)


def _read_stdin(stream: BinaryIO, system: str | None) -> Iterator[PlacedPrompt]:
    """Yield the prompts of a stream without a name, whose first line shows whether it has objects or plain prompts."""
    lines = _read_lines(stream, "standard input")
    begun = list(islice(lines, 2))
    if not begun:
        return
    value = _try_json(begun[0][1])
    has_objects = _is_object(value)
    is_array = isinstance(value, list) and any(map(_is_object, value))
    # The first line of what jq writes without -c, and the beginning of the second one.
    is_spread = len(begun) > 1 and (begun[0][1], begun[1][1][0]) in (("{", '"'), ("[", "{"))
    if is_array or is_spread:
        raise PromptError(
            "standard input must have each object on one line, as jq -c '.[]' writes them, and no array: of that each "
            "line would be a prompt"
        )
    for place, line in chain(begun, lines):
        yield _read_object(_parse(line, place), place, system) if has_objects else _place(line, place, system)


def _try_json(text: str) -> Any:
    """Return the value of a line; None if it is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _is_object(value: object) -> bool:
    """Whether a value is meant as a prompt with parameters, not as a prompt that happens to be JSON."""
    return isinstance(value, dict) and not value.keys().isdisjoint(("prompt", "messages", "body"))


def _read_variables(text: str, system: str | None) -> Iterator[PlacedPrompt]:
    if text:
        place = "the prompt in environment variables"
        yield _read_object(_parse(text, place), place, system)


def _read_file(stream: BinaryIO, file: Path, system: str | None) -> Iterator[PlacedPrompt]:
    match file.suffix.lower():
        case ".jsonl" | ".ndjson":
            for place, line in _read_lines(stream, str(file)):
                yield _read_object(_parse(line, place), place, system)
        case ".json":
            text = _decode(stream.read(), str(file))
            yield from _read_array(_parse(text, str(file), "; one object per line takes .jsonl"), file, system)
        case _:
            yield from _read_plain(stream, str(file), system)


def _read_plain(stream: BinaryIO, name: str, system: str | None) -> Iterator[PlacedPrompt]:
    for place, line in _read_lines(stream, name):
        yield _place(line, place, system)


def _read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """Yield every line that is not empty, together with its location in words."""
    for number, line in enumerate(stream, start=1):
        place = f"{name}, line {number},"
        text = _decode(line, place, is_first=number == 1)
        if text:
            yield place, text


def _decode(content: bytes, place: str, *, is_first: bool = True) -> str:
    try:
        return content.decode("utf-8-sig" if is_first else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise PromptError(f"{place} is not valid UTF-8: {error}") from error


def _parse(text: str, place: str, hint: str = "") -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PromptError(f"{place} is not valid JSON: {error}{hint}") from error


def _place(text: str, place: str, system: str | None) -> PlacedPrompt:
    return PlacedPrompt(place, _converse(text, system))


def _converse(text: str, system: str | None) -> Prompt:
    before = ({"role": "system", "content": system},) if system else ()
    return Prompt(messages=(*before, {"role": "user", "content": text}))


def _read_array(values: object, file: Path, system: str | None) -> Iterator[PlacedPrompt]:
    if not isinstance(values, list):
        raise PromptError(f"{file} must be an array of objects; a file with one object per line ends in .jsonl")
    for number, value in enumerate(values, start=1):
        yield _read_object(value, f"{file}, object {number},", system)


def _read_object(values: object, place: str, system: str | None) -> PlacedPrompt:
    if isinstance(values, dict) and "body" in values:
        values = _read_request(values, place)
    if not isinstance(values, dict) or ("prompt" in values) == ("messages" in values):
        raise PromptError(f'{place} must be an object with "prompt", a string, or "messages", a list of objects')
    unknown = values.keys() - set(KNOWN_FIELDS)
    if unknown:
        fields = ", ".join(sorted(unknown))
        raise PromptError(f"{place} has fields that would be ignored: {fields}; known are {', '.join(KNOWN_FIELDS)}")
    text = values.pop("prompt", None)
    if text is not None:
        if not isinstance(text, str) or not text:
            raise PromptError(f'{place} has a "prompt" that is not a string, or empty')
        values["messages"] = _converse(text, system).messages
    try:
        return PlacedPrompt(place, Prompt.model_validate(values))
    except ValidationError as error:
        raise PromptError(f"{place} {first_error(error)}") from error


def _read_request(values: dict[str, Any], place: str) -> dict[str, Any]:
    try:
        return BatchRequest.model_validate(values).to_prompt()
    except ValidationError as error:
        raise PromptError(f"{place} {first_error(error)}") from error


def first_error(error: ValidationError) -> str:
    """Return the first of a model's errors: the field, and what is wrong with it, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
