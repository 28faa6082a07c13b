"""The findings of checks. They contain text from the cluster, which is cleaned and truncated when a finding is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from perllm.text import clean_line

MAX_NAMED = 5
MAX_WORDS = 2000
"""Characters of a message or of advice."""


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        level: severity; FAIL means that tasks will not be placed, or not as promised.
        check: what was checked.
        message: what was found.
        advice: what to do about it; empty if there is nothing to do.
    """

    level: Level
    check: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.level:<4} {self.check}: {self.message}{advice}"


def ok(check: str, message: str) -> Finding:
    """Return a finding that all is in order."""
    return _find(Level.OK, check, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Return a finding that PerLLM works with, but not as well as it could."""
    return _find(Level.WARN, check, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Return a finding that PerLLM does not work with."""
    return _find(Level.FAIL, check, message, advice)


def count_levels(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings of each level."""
    counts = {level.value: 0 for level in Level}
    for finding in findings:
        counts[finding.level.value] += 1
    return counts


def name_some(names: Sequence[str]) -> str:
    """Return the first few names, and the number of further ones."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _find(level: Level, check: str, message: str, advice: str = "") -> Finding:
    return Finding(level, check, clean_line(message, MAX_WORDS), clean_line(advice, MAX_WORDS))
