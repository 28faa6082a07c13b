"""The prompts of a task, from arguments, files or standard input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perllm.api.prompt_variables import PREFIX

Message = dict[str, Any]
MAX_PROMPTS = 100_000


class PromptError(Exception):
    """The prompts are invalid; the message names the line."""


class Prompt(BaseModel):
    """A prompt, and parameters that apply only to it.

    Attributes:
        messages: the conversation, in the format of the chat API.
        max_tokens: longest answer; None for that of the command line.
        temperature: sampling temperature; None for that of the command line.
        top_p: total probability of the tokens that are sampled; None for the server's own.
        seed: seed of the sampling.
        stop: texts at which the answer ends.
        id: id that its answer will carry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(strict=True, ge=1)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    id: Annotated[str, Field(max_length=256)] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """How its answer is generated, as far as it says so, by the names of the chat API."""
        return self.model_dump(mode="json", exclude={"messages", "id"}, exclude_none=True)


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

    A file has one prompt per line; one that ends in ``.jsonl`` has one JSON object per line, one that ends in ``.json``
    an array of them. An object has ``prompt`` or ``messages``, and may have ``max_tokens``, ``temperature``, ``top_p``,
    ``seed``, ``stop`` and ``id``. Empty lines are ignored.

    Args:
        texts: prompts given as arguments.
        files: files with prompts, in UTF-8.
        stdin: one prompt per line, in UTF-8; None if it is not to be read.
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
            yield PlacedPrompt(f"prompt {number} of the command line", _converse(text, system))
    for file in files:
        try:
            with file.open("rb") as stream:
                yield from _read_file(stream, file, system)
        except OSError as error:
            raise PromptError(f"{file} cannot be read: {error}") from error
    if stdin is not None:
        yield from _read_plain(stdin, "standard input", system)


def _read_variables(text: str, system: str | None) -> Iterator[PlacedPrompt]:
    if text:
        place = f"{PREFIX}*"
        yield _read_object(_parse(text, place), place, system)


def _read_file(stream: BinaryIO, file: Path, system: str | None) -> Iterator[PlacedPrompt]:
    match file.suffix.lower():
        case ".jsonl":
            for place, line in _read_lines(stream, str(file)):
                yield _read_object(_parse(line, place), place, system)
        case ".json":
            yield from _read_array(_parse(_decode(stream.read(), str(file)), str(file)), file, system)
        case _:
            yield from _read_plain(stream, str(file), system)


def _read_plain(stream: BinaryIO, name: str, system: str | None) -> Iterator[PlacedPrompt]:
    for place, line in _read_lines(stream, name):
        yield PlacedPrompt(place, _converse(line, system))


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


def _parse(text: str, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PromptError(f"{place} is not valid JSON: {error}") from error


def _converse(text: str, system: str | None) -> Prompt:
    before = ({"role": "system", "content": system},) if system else ()
    return Prompt(messages=(*before, {"role": "user", "content": text}))


def _read_array(values: object, file: Path, system: str | None) -> Iterator[PlacedPrompt]:
    if not isinstance(values, list):
        raise PromptError(f"{file} must be an array of objects; a file with one object per line ends in .jsonl")
    for number, value in enumerate(values, start=1):
        yield _read_object(value, f"{file}, object {number},", system)


def _read_object(values: object, place: str, system: str | None) -> PlacedPrompt:
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


def first_error(error: ValidationError) -> str:
    """Return the first of a model's errors: the field, and what is wrong with it, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
