"""What the operator logs about outages: one line when one begins, and one when it ends."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from perllm.cluster.outages import GIVEN_UP, WORKS

BEGIN, START = "; retrying until it works", "starting PerLLM"
ENDS = (f": {WORKS} after ", f": {GIVEN_UP} after ")


def count_outages(lines: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many outages were logged, by what did not work."""
    return Counter(topic for topic in map(_read_begin, lines) if topic)


def find_logging_errors(lines: Iterable[Mapping[str, Any]], disturbances: int) -> list[str]:
    """Return where an outage was logged twice, and what was logged more often than something was disturbed.

    Args:
        lines: of the operator's log, of one process after the other.
        disturbances: how many faults can have kept the operator from the API server, each of which is one outage.
    """
    lines, current, problems = list(lines), set[str](), []
    for line in lines:
        message = str(line.get("message"))
        if message.startswith(START):
            current.clear()
        elif topic := _read_begin(line):
            if topic in current:
                problems.append(f"operator.log: an outage was logged again before its end: {message[:200]}")
            current.add(topic)
        for end in ENDS:
            if end in message:
                current.discard(message.partition(end)[0])
    problems += [f"operator.log: no end of the outage of {topic} was logged" for topic in sorted(current)]
    return problems + [
        f"operator.log: {count} outages of {topic} were logged, after {disturbances} disturbances"
        for topic, count in count_outages(lines).items()
        if count > disturbances
    ]


def _read_begin(line: Mapping[str, Any]) -> str:
    """Return what does not work, if a line says so."""
    message = str(line.get("message"))
    return message.partition(": ")[0] if message.endswith(BEGIN) else ""
