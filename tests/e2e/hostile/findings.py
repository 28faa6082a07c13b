"""What became of hostile input."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from e2e.hostile.cases import Case
from e2e.hostile.rig import GONE
from e2e.stage import list_tracebacks
from perllm_lab.trace_replay import FINAL_PHASES
from strategies.values import Object

# The messages of a healthy task.
USUAL = re.compile(r"|waiting for (its turn|a node)|waiting: a node without room .*|the pod is starting")
MESSAGE_LENGTH = 70
PROBLEM_LENGTH = 200
FIRST_PRINTABLE = 0x20


@dataclass(frozen=True, slots=True)
class Problem:
    """A defect, and the input it was seen with."""

    kind: str
    oddity: str
    words: str


@dataclass(slots=True)
class HostileFindings:
    """The outcome of a run, filled while it goes on.

    Attributes:
        put: objects by kind.
        accepted: how many of them the API server accepted, by kind.
        ends: how many accepted ones are in which phase with which message, by kind.
        waits_s: how long each task of the bystander waited for its node.
        problems: the defects.
    """

    put: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, cases: Sequence[Case], accepted: Sequence[Case], ends: Sequence[tuple[Case, Object]]) -> None:
        """Count cases, those that were accepted, and the phases and messages of their tasks."""
        self.put.update(case.kind for case in cases)
        self.accepted.update(case.kind for case in accepted)
        for case, status in ends:
            self.ends[case.kind, str(status.get("phase")), shorten(str(status.get("message") or ""))] += 1

    def render(self) -> Table:
        """Return a table of the input and of what became of it, with a summary."""
        table = Table(title="Hostile input", title_justify="left")
        for heading in ("kind", "objects", "accepted", "phase", "message", "count"):
            table.add_column(heading, justify="right" if heading in ("objects", "accepted", "count") else "left")
        for kind, count in self.put.items():
            table.add_row(kind, str(count), str(self.accepted[kind]))
            for (own, phase, message), number in self.ends.most_common():
                if own == kind:
                    table.add_row("", "", "", phase, message, str(number))
        waits_s = self.waits_s or [0.0]
        table.caption = (
            f"{self.put.total()} objects; {len(self.problems)} problems; the bystander's {len(waits_s)} tasks waited "
            f"{median(waits_s):.2f} s for a node, {max(waits_s):.2f} s at most"
        )
        return table

    def list_problems(self) -> list[str]:
        """Return one line per kind of problem, with how often it was seen."""
        counts = Counter((one.kind, one.oddity, one.words[:PROBLEM_LENGTH]) for one in self.problems)
        return [f"{kind}, {oddity}: {words} ({number} x)" for (kind, oddity, words), number in counts.items()]


def find_silence(case: Case, status: Object) -> str:
    """Return phase and message of a task that does not say what is wrong; empty if it has ended, or says so cleanly.

    A final phase that the case itself wrote into the status is accepted, with any message.
    """
    phase, message = status.get("phase"), str(status.get("message") or "")
    has_ended = phase in FINAL_PHASES
    if phase == GONE or (has_ended and isinstance(case.value, dict) and case.value.get("phase") == phase):
        return ""
    if any(ord(character) < FIRST_PRINTABLE for character in message):
        return f"is {phase} and says {message!r}, which is not clean"
    names_fault = bool(message) if has_ended else not USUAL.fullmatch(message)
    return "" if phase == "Succeeded" or names_fault else f"is {phase} and says {message!r}"


def find_traceback_problems(lines: Sequence[str], cases: Sequence[Case]) -> list[Problem]:
    """Return the tracebacks in the operator's log, each with the case that its line names, if it names one."""
    problems = []
    for line in list_tracebacks(lines):
        named = next((case for case in cases if re.search(rf"/{case.name}\b", line)), None)
        oddity = named.oddity if named else f"any of {len(cases)}"
        problems.append(Problem(cases[0].kind, oddity, f"traceback: {_find_error(line)}"))
    return problems


def _find_error(line: str) -> str:
    """Return the error at the end of a traceback: its last line that looks like `module.Error: message`."""
    inner = [part.strip(" |+-}") for part in line.replace('"', "").split("\\n")]
    return next((part for part in reversed(inner) if re.match(r"[\w.]+: ", part)), inner[-1])


def shorten(text: str) -> str:
    """Return a message without the parts that differ from case to case."""
    plain = re.sub(r"\"[^\"]*\"|'[^']*'|\d+", "_", text.encode("unicode_escape").decode())
    return plain if len(plain) <= MESSAGE_LENGTH else plain[:MESSAGE_LENGTH] + "..."
