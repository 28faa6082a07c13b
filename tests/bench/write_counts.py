"""Requests by which the operator changed something, counted from the audit log of the API server."""

from collections import Counter
from collections.abc import Mapping

from bench.tables import Row
from e2e.audit import AuditLog

APART = {"Events": "events", "profiles": "llmnodeprofiles"}


def count_writes(audit: AuditLog) -> Counter[str]:
    """Return the changes that were made since the last call, by verb and kind."""
    return Counter(f"{one.verb} {one.kind}" for one in audit.read_new() if one.code < 300)


def summarize_writes(writes: Mapping[str, int], tasks: float) -> list[Row]:
    """Return the writes of a task: those to tasks and pods, and apart from them Events and profiles."""
    groups: dict[str, dict[str, int]] = {"tasks and pods": {}, **{name: {} for name in APART}}
    for what, count in writes.items():
        name = next((name for name, kind in APART.items() if kind in what), "tasks and pods")
        groups[name][what] = count
    return [
        Row(
            f"writes per task: {name}",
            [sum(counts.values()) / tasks],
            "",
            "<= 5" if name == "tasks and pods" else "",
            ", ".join(f"{what} {count / tasks:.2f}" for what, count in sorted(counts.items())),
        )
        for name, counts in groups.items()
    ]
