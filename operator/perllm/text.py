"""Cleans and truncates text from outside: from the API server, containers, model servers and Prometheus.

Every boundary calls these functions once, before a text enters a field, a log line or a terminal. So the rest of the
code may combine texts without checking their length again, and no text can move a cursor or forge a log line.
"""

import re
from io import TextIOWrapper

MAX_LINE = 1000
"""Characters of one line from outside; three such lines fit into the longest message of a status."""

ELLIPSIS = "…"

# Complete escape sequences of terminals.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
# Control characters except tab and newline, surrogates, and characters that are invisible or change text direction.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SPACES = re.compile(r"\s+")


def clean_line(text: object, limit: int = MAX_LINE) -> str:
    """Return `text` as one line of at most `limit` characters; an ellipsis shows that it was truncated."""
    line = str(text)
    if len(line) <= limit and line.isprintable() and "  " not in line:
        return line.strip()  # as nearly all are
    return cut(_SPACES.sub(" ", _strip(_head(line, limit))).strip(), limit)


def clean_text(text: object, limit: int) -> str:
    """Return at most `limit` characters of `text`, keeping its newlines and tabs."""
    return cut(_strip(_head(str(text), limit).replace("\r\n", "\n")), limit)


def error_line(error: BaseException) -> str:
    """Return an error as one line: its message, or its type if it has none, such as a timeout."""
    return clean_line(error) or type(error).__name__


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text`; an ellipsis shows that it was truncated."""
    return text if len(text) <= limit else text[: limit - len(ELLIPSIS)] + ELLIPSIS


def cut_bytes(text: str, limit: int) -> str:
    """Return at most `limit` bytes of `text` in UTF-8; an ellipsis shows that it was truncated."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - len(ELLIPSIS.encode())].decode(errors="ignore") + ELLIPSIS


def hide_credentials(text: str) -> str:
    """Return the text with user and password removed from any URL; a password may itself contain an @, or a blank."""
    return re.sub(r"//(?:[^\s'\"]*|[^/?#]*)@", "//", text)


def replace_unencodable(stream: object) -> None:
    """Let a stream write a question mark for a character that its encoding lacks, instead of raising an error.

    In a terminal whose locale is not of UTF-8 an answer may have such characters.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")


def _head(text: str, limit: int) -> str:
    """Limit the work on very long texts; cleaning rarely removes more than half of a text."""
    return text[: 2 * limit + 1]


def _strip(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r", "\n")))
