"""What a chaos run must leave behind, and what it found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from e2e.chaos.plan import Kill
from perllm.cluster.client import Object
from perllm_lab.replay import FINAL_PHASES


@dataclass(frozen=True, slots=True)
class Recovery:
    """A fault, and the seconds from the kill until everything worked again."""

    kill: Kill
    took_s: float


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a run.

    Attributes:
        recoveries: every fault.
        phases: how many tasks ended in which phase.
        duplicates: tasks that ran to their end more than once, and how often.
        learned: outcomes in the learned state.
        problems: whatever must not be so.
    """

    recoveries: tuple[Recovery, ...]
    phases: Mapping[str, int]
    duplicates: Mapping[str, int]
    learned: int
    problems: tuple[str, ...]

    def render(self) -> Table:
        """Return the findings for people."""
        table = Table(title="Chaos", title_justify="left")
        for heading in ("killed", "away for", "everything works again after"):
            table.add_column(heading)
        for one in self.recoveries:
            table.add_row(", ".join(one.kill.victims), f"{one.kill.down_s:.1f} s", f"{one.took_s:.1f} s")
        succeeded = self.phases.get("Succeeded", 0)
        table.caption = (
            f"{sum(self.phases.values())} tasks: {dict(self.phases)}; {len(self.duplicates)} ran twice; "
            f"{self.learned} of {succeeded} successes learned; {len(self.problems)} problems"
        )
        return table


def find_task_problems(tasks: Iterable[Object], runs: Mapping[str, int]) -> list[str]:
    """Return which tasks have not ended, and which ended otherwise than their pods did.

    Args:
        tasks: all tasks of a namespace.
        runs: how often each of them has really run to its end.
    """
    problems = []
    for task in tasks:
        name, status = task["metadata"]["name"], task.get("status") or {}
        if status.get("phase") not in FINAL_PHASES:
            problems.append(f"{name} is still {status.get('phase')}: {status.get('message')}")
        elif runs.get(name, 0) != 1:
            problems.append(f"{name} has run {runs.get(name, 0)} times and is {status['phase']}")
    return problems


def find_pod_problems(pods: Iterable[Object], tasks: Mapping[str, Object]) -> list[str]:
    """Return which pods are left over: those that still run, and those whose task is not there."""
    problems = []
    for pod in pods:
        name, owner = pod["metadata"]["name"], pod["metadata"]["ownerReferences"][0]["name"]
        if pod["status"]["phase"] not in FINAL_PHASES or owner not in tasks:
            problems.append(f"pod {name} of {owner} is left over: {pod['status']['phase']}")
    return problems


def find_learning_problems(profiles: Mapping[str, Object], succeeded: Mapping[str, int]) -> list[str]:
    """Return on which nodes more was learned than succeeded there, or something twice."""
    problems = []
    for name, profile in profiles.items():
        status = profile.get("status") or {}
        twice = [uid for uid, count in Counter(status.get("recent", ())).items() if count > 1]
        if twice or status.get("outcomes", 0) > succeeded.get(name, 0):
            problems.append(
                f"{name} has learned {status.get('outcomes')} of {succeeded.get(name, 0)} outcomes, twice: {twice}"
            )
    return problems


def find_tracebacks(log: str) -> list[str]:
    """Return the ends of the log lines with a traceback, which say what was raised."""
    return [f"operator.log: {line[-300:]}" for line in log.splitlines() if "Traceback (most recent" in line]
