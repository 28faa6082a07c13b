"""Text from outside: what the API server, containers, model servers and Prometheus say is cut and cleaned in here only.

Every boundary calls these functions once, before a text enters a field, a log line or a terminal. So whatever follows
may put texts together without looking at their length again, and nobody's words can move a cursor or forge a line.
"""

import re

MAX_LINE = 1000
"""Characters of one line from outside: three of them fit into the longest message of a status."""

ELLIPSIS = "…"

# Escape sequences of terminals, with all that belongs to them.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
# Control characters but for tab and newline, surrogates, and what turns the direction of text or hides it.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SPACES = re.compile(r"\s+")


def clean_line(text: object, limit: int = MAX_LINE) -> str:
    """Return `text` as one line of at most `limit` characters; what is cut off is shown by an ellipsis."""
    return cut(_SPACES.sub(" ", _strip(_head(str(text), limit))).strip(), limit)


def clean_text(text: object, limit: int) -> str:
    """Return `text` of at most `limit` characters, with its newlines and tabs."""
    return cut(_strip(_head(str(text), limit).replace("\r\n", "\n")), limit)


def error_line(error: BaseException) -> str:
    """Return an error in one line: its words, or its type where it has none, as a timeout."""
    return clean_line(error) or type(error).__name__


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text`, with an ellipsis in place of what is left out."""
    return text if len(text) <= limit else text[: limit - len(ELLIPSIS)] + ELLIPSIS


def _head(text: str, limit: int) -> str:
    """Spare work on texts without end: what is cleaned away is rarely more than half."""
    return text[: 2 * limit + 1]


def _strip(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r", "\n")))
