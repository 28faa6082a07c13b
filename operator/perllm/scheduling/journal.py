"""A journal of everything that decisions depend on, one JSON object per line, from which they can be made again.

    {"version": 2, "settings": {...}}                                      the first line
    {"now_s": ..., "unix_s": ..., "input": "submit", "with": [...], "result": ...}

Inputs are the methods of an object that are marked `recorded`. Arguments are written and read by the types that the
methods are annotated with; of a result only its `digest` is kept, for comparison.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from inspect import signature
from math import isfinite
from typing import IO, Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

import orjson
from pydantic import TypeAdapter

from perllm.placement.decision import Decision
from perllm.placement.placer import Placement
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.pending import Reject, SetAside, Start, Wait

log = logging.getLogger(__name__)

VERSION = 2

P = ParamSpec("P")
R = TypeVar("R")


class JournalError(ValueError):
    """A journal cannot be read; the message says where, and why."""


class Inputs:
    """The clock that the inputs of an object go by, and the journal that records them.

    Args:
        clock: held while an input is processed.
        file: the journal; None to record nothing.
        notify: called after each input, since there may be something to do.
    """

    def __init__(
        self, clock: HeldClock, file: IO[bytes] | None = None, notify: Callable[[], None] = lambda: None
    ) -> None:
        self.clock = clock
        self.notify = notify
        self._file = file

    def begin(self, settings: dict[str, Any]) -> None:
        """Write the first line."""
        self._write({"version": VERSION, "settings": settings})

    def record(self, name: str, arguments: list[Any], result: Any) -> None:
        """Write an input; does nothing without a journal."""
        moment = {"now_s": self.clock.now_s(), "unix_s": self.clock.unix_s()}
        self._write({**moment, "input": name, "with": arguments, "result": result})

    @property
    def is_recorded(self) -> bool:
        """Whether there is a journal."""
        return self._file is not None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            self._file.flush()
        except OSError as error:
            log.error("decisions are no longer recorded: the journal cannot be written: %s", error)
            self._file = None


class Recordable(Protocol):
    """An object whose inputs can be recorded."""

    @property
    def inputs(self) -> Inputs:
        """Its inputs."""


S = TypeVar("S", bound=Recordable)


def recorded(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method an input: it runs with the clock held, and is recorded; inputs that it calls are not."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        inputs = self.inputs
        if inputs.clock.is_held:
            return method(self, *args, **kwargs)
        inputs.clock.hold()
        try:
            try:
                result = method(self, *args, **kwargs)
            except Exception as error:
                _record(inputs, method, (self, *args), kwargs, error)
                raise
            _record(inputs, method, (self, *args), kwargs, result)
        finally:
            # Also when the journal cannot be written: a clock that stays held would stop everything.
            inputs.clock.release()
        inputs.notify()
        return result

    return run


def _record(
    inputs: Inputs, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], outcome: object
) -> None:
    if inputs.is_recorded:
        inputs.record(method.__name__, _encode(method, args, kwargs), digest(outcome))


def digest(result: object) -> Any:
    """Return the part of a result that is compared: verdict, node and score of decisions, plain values as they are."""
    match result:
        case list():
            return [digest(one) for one in result]
        case Start(task, placement):
            return {"task": task.key, "verdict": "start", **digest(placement)}
        case Wait(task, placement):
            return {"task": task.key, "verdict": "wait", **_describe(placement, placement.favourite)}
        case Reject(task, placement):
            return {"task": task.key, "verdict": "reject", **_describe(placement, placement.favourite)}
        case SetAside(task):
            return {"task": task.key, "verdict": "set aside"}
        case Placement():
            return _describe(result, result.arm)
        case Decision():
            return {"node": result.node, "score": result.assessment.score}
        case Exception():
            return {"error": type(result).__name__}
        case None | bool() | int() | float() | str():
            return result
    return None


def _describe(placement: Placement, arm: int | None) -> dict[str, Any]:
    if arm is None:
        return {"node": None, "score": None}
    score = float(placement.choice.scores[arm])
    return {"node": placement.names[arm], "score": score if isfinite(score) else None}


@dataclass(frozen=True, slots=True)
class RecordedInput:
    """An input as it was recorded.

    Attributes:
        line: number of its line in the journal.
        now_s: monotonic seconds.
        unix_s: Unix time.
        name: of the method.
        arguments: as they were written.
        result: digest of what the method returned.
    """

    line: int
    now_s: float
    unix_s: float
    name: str
    arguments: list[Any]
    result: Any


def read_journal(file: IO[bytes]) -> tuple[dict[str, Any], Iterator[RecordedInput]]:
    """Return the settings that a journal begins with, and its inputs.

    Raises:
        JournalError: the file is not a journal of this version. The iterator raises it at a broken line, but skips a
            last line that was cut off, since the process that wrote it may have died.
    """
    try:
        first = orjson.loads(file.readline())
        if first["version"] != VERSION:
            raise JournalError(f"the journal has version {first['version']}, but this PerLLM reads version {VERSION}")
        settings: dict[str, Any] = first["settings"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise JournalError("not a journal: its first line has no version and settings") from error
    return settings, _read_entries(file)


def call_input(target: object, entry: RecordedInput) -> Any:
    """Apply a recorded input to an object; return the digest of the result.

    Raises:
        JournalError: the object has no such input, or its arguments cannot be read.
    """
    method = getattr(type(target), entry.name, None)
    if method is None or not hasattr(method, "__wrapped__"):
        raise JournalError(f"line {entry.line}: there is no input {entry.name!r}")
    adapters = _adapters(method.__wrapped__)
    if len(entry.arguments) != len(adapters):
        raise JournalError(f"line {entry.line}: {entry.name} takes {len(adapters)} arguments")
    try:
        arguments = [adapter.validate_python(value) for adapter, value in zip(adapters, entry.arguments, strict=True)]
    except ValueError as error:
        raise JournalError(f"line {entry.line}: {error}") from error
    try:
        return digest(method(target, *arguments))
    except Exception as error:
        return digest(error)


def _read_entries(file: IO[bytes]) -> Iterator[RecordedInput]:
    for number, line in enumerate(file, start=2):
        try:
            fields = orjson.loads(line)
            yield RecordedInput(
                number, fields["now_s"], fields["unix_s"], fields["input"], fields["with"], fields["result"]
            )
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            if not line.endswith(b"\n"):
                return
            raise JournalError(f"line {number} is not an input") from error


def _encode(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    bound = signature(method).bind(*args, **kwargs)
    bound.apply_defaults()
    values = list(bound.arguments.values())[1:]
    return [adapter.dump_python(value, mode="json") for adapter, value in zip(_adapters(method), values, strict=True)]


@cache
def _adapters(method: Callable[..., Any]) -> list[TypeAdapter[Any]]:
    hints = get_type_hints(method)
    return [TypeAdapter(hints[name]) for name in list(signature(method).parameters)[1:]]
