"""What became of hostile input."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from e2e.hostile.cases import Case
from e2e.hostile.rig import GONE
from perllm_lab.replay import FINAL_PHASES
from strategies.values import Object

# What a healthy task says on its way.
USUAL = re.compile(r"|waiting for .*|waiting: a node without room .*|the pod is starting")
MESSAGE_LENGTH = 70
FAULT_LENGTH = 200
FIRST_PRINTABLE = 0x20


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be so, and what it was seen with."""

    kind: str
    oddity: str
    words: str


@dataclass(slots=True)
class Findings:
    """The outcome of a run, filled while it goes on.

    Attributes:
        put: objects by kind.
        accepted: how many of them the API server accepted, by kind.
        ends: how many accepted ones ended, or stand, in which phase with which message.
        waits_s: how long each task of the bystander waited for its node.
        faults: whatever must not be so.
    """

    put: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def note(self, cases: Sequence[Case], accepted: Sequence[Case], ends: Sequence[tuple[Case, Object]]) -> None:
        """Count cases, those that were accepted, and how their tasks ended, or how they stand."""
        self.put.update(case.kind for case in cases)
        self.accepted.update(case.kind for case in accepted)
        for case, status in ends:
            self.ends[case.kind, str(status.get("phase")), shorten(str(status.get("message") or ""))] += 1

    def render(self) -> Table:
        """Return the findings for people."""
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
            f"{self.put.total()} objects; {len(self.faults)} faults; the bystander's {len(waits_s)} tasks waited "
            f"{median(waits_s):.2f} s for a node, {max(waits_s):.2f} s at most"
        )
        return table

    def render_faults(self) -> list[str]:
        """Return a line for each kind of fault, with how often it was seen."""
        counts = Counter((one.kind, one.oddity, one.words[:FAULT_LENGTH]) for one in self.faults)
        return [f"FAULT {kind}, {oddity}: {words} ({number} x)" for (kind, oddity, words), number in counts.items()]


def find_silence(status: Object) -> str:
    """Return how a task stands without saying why; empty when it has ended, or says cleanly what is wrong with it."""
    phase, message = status.get("phase"), str(status.get("message") or "")
    has_ended = phase in FINAL_PHASES
    if any(ord(character) < FIRST_PRINTABLE for character in message):
        return f"is {phase} and says {message!r}, which is not clean"
    if phase in ("Succeeded", GONE) or (has_ended and message) or not (has_ended or USUAL.fullmatch(message)):
        return ""
    return f"is {phase} and says {message!r}"


def find_tracebacks(lines: Sequence[str], cases: Sequence[Case]) -> list[Fault]:
    """Return the tracebacks in the operator's log, each with the case that its line names, if it names one."""
    faults = []
    for line in lines:
        if "Traceback (most recent" not in line:
            continue
        named = next((case for case in cases if re.search(rf"/{case.name}\b", line)), None)
        oddity = named.oddity if named else f"any of {len(cases)}"
        faults.append(Fault(cases[0].kind, oddity, f"traceback: {_find_error(line)}"))
    return faults


def _find_error(line: str) -> str:
    """Return what a log line says was raised: the last line of its traceback that is no frame around it."""
    inner = [part.strip(" |+-}") for part in line.replace('"', "").split("\\n")]
    return next((part for part in reversed(inner) if re.match(r"[\w.]+: ", part)), inner[-1])


def shorten(text: str) -> str:
    """Return a message without what differs from case to case."""
    plain = re.sub(r"\"[^\"]*\"|'[^']*'|\d+", "_", text.encode("unicode_escape").decode())
    return plain if len(plain) <= MESSAGE_LENGTH else plain[:MESSAGE_LENGTH] + "..."
