"""What a check has found. Findings hold words of the cluster; all are cleaned and cut where they are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from perllm.text import clean_line

MAX_NAMED = 5
MAX_WORDS = 2000
"""Characters of a message or an advice."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        level: how bad it is; FAIL means that tasks will not be placed, or not as promised.
        check: what was looked at.
        message: what was seen.
        advice: what to do about it; empty when there is nothing to do.
    """

    level: Level
    check: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.level:<4} {self.check}: {self.message}{advice}"


def ok(check: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return _find(Level.OK, check, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Return a finding that PerLLM works with, but not as well as it could."""
    return _find(Level.WARN, check, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Return a finding that PerLLM does not work with."""
    return _find(Level.FAIL, check, message, advice)


def count_levels(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each level."""
    counts = {level.value: 0 for level in Level}
    for finding in findings:
        counts[finding.level.value] += 1
    return counts


def name_some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _find(level: Level, check: str, message: str, advice: str = "") -> Finding:
    return Finding(level, check, clean_line(message, MAX_WORDS), clean_line(advice, MAX_WORDS))
