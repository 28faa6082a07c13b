"""Logging for people or machines; every record is cleaned and truncated when it is written."""

import logging
import sys
from math import isfinite
from textwrap import indent
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from perllm.text import ELLIPSIS, clean_line, clean_text

# Attributes that Kopf adds to records for its own formatter; `settings` holds objects that cannot be written as JSON.
KOPF_ATTRIBUTES = ("settings", "k8s_skip")

QUIET = ("kopf", "aiohttp.access", "urllib3", "asyncio")

MAX_MESSAGE = 8000
"""Characters of one message. PerLLM's own messages are shorter, since texts from outside are truncated on entry."""

MAX_TRACEBACK = 20_000
MAX_INTEGER = 2**63 - 1
"""Larger integers are written as text, since no parser can be expected to read them."""

MAX_DEPTH = 4
"""Levels of lists and objects in a field; deeper ones are written as text."""

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogSettings(BaseModel):
    """How a process logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(default="text", pattern="^(text|json)$", description="text for people, json for machines.")
    level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Lowest level that is logged."
    )


class TextFormatter(logging.Formatter):
    """One line per record, followed by the traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the message as one line."""
        record.message = clean_line(record.message, MAX_MESSAGE)
        return super().formatMessage(record)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802
        """Return the traceback, indented."""
        return _indent(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return the stack, indented."""
        return _indent(super().formatStack(stack_info))


class CleanJsonFormatter(OrjsonFormatter):
    """One JSON object per record."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Clean every field, whose name is from our code or a library's; tracebacks keep their lines."""
        return {
            key: clean_traceback(str(value)) if key in ("exc_info", "stack_info") else _clean(value)
            for key, value in log_data.items()
        }


def configure_logging(settings: LogSettings) -> None:
    """Send all log lines to standard error, in the configured format."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(
            CleanJsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                reserved_attrs=[*RESERVED_ATTRS, *KOPF_ATTRIBUTES],
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Kopf warns that it does not handle signals in a thread; here that is intended.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    # Kopf logs every failed attempt of a request; the session that it is given logs each outage once.
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
    logging.getLogger("kopf._core.reactor.observation").addFilter(_is_not_an_attempt)


def _is_not_an_attempt(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Request attempt")


def clean_traceback(text: str) -> str:
    """Return a traceback without terminal control sequences; a long one is reduced to its beginning and end."""
    cleaned = clean_text(text, len(text))
    if len(cleaned) <= MAX_TRACEBACK:
        return cleaned
    half = MAX_TRACEBACK // 2
    return f"{cleaned[:half]}\n{ELLIPSIS}\n{cleaned[-half:]}"


def _indent(text: str) -> str:
    """Return a traceback with indented lines, so that none can be mistaken for a record of its own."""
    return indent(clean_traceback(text), "  ")


def _clean(value: object, depth: int = 0) -> object:
    is_integer = isinstance(value, int) and abs(value) <= MAX_INTEGER
    if value is None or is_integer or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        return {clean_line(key): _clean(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [_clean(inner, depth + 1) for inner in value]
    return clean_line(value, MAX_MESSAGE)
