"""What must hold after a chaos run, and what the run found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from e2e.chaos.plan import Kill
from perllm.cluster.client import Object
from perllm_lab.trace_replay import FINAL_PHASES


@dataclass(frozen=True, slots=True)
class Recovery:
    """A kill, and the seconds until everything worked again."""

    kill: Kill
    took_s: float


@dataclass(frozen=True, slots=True)
class ChaosFindings:
    """The outcome of a run.

    Attributes:
        recoveries: one per kill.
        phases: how many tasks ended in which phase.
        duplicates: tasks that ran to completion more than once, and how often.
        learned: outcomes in the learned state.
        problems: one line per defect.
    """

    recoveries: tuple[Recovery, ...]
    phases: Mapping[str, int]
    duplicates: Mapping[str, int]
    learned: int
    problems: tuple[str, ...]

    def render(self) -> Table:
        """Return a table of the kills, with a summary."""
        table = Table(title="Chaos", title_justify="left")
        for heading in ("killed", "down for", "everything works again after"):
            table.add_column(heading)
        for one in self.recoveries:
            table.add_row(", ".join(one.kill.victims), f"{one.kill.down_s:.1f} s", f"{one.took_s:.1f} s")
        succeeded = self.phases.get("Succeeded", 0)
        table.caption = (
            f"{sum(self.phases.values())} tasks: {dict(self.phases)}; {len(self.duplicates)} ran twice; "
            f"{self.learned} of {succeeded} successes learned; {len(self.problems)} problems"
        )
        return table

    def list_problems(self) -> tuple[str, ...]:
        """Return one line per defect."""
        return self.problems


def find_task_problems(tasks: Iterable[Object], runs: Mapping[str, int]) -> list[str]:
    """Return which tasks have not ended, and which did not run exactly once.

    Args:
        tasks: all tasks of a namespace.
        runs: how often each of them has really run to completion.
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
    """Return which pods are left over: those that still run, and those whose task does not exist."""
    problems = []
    for pod in pods:
        name, owner = pod["metadata"]["name"], pod["metadata"]["ownerReferences"][0]["name"]
        if pod["status"]["phase"] not in FINAL_PHASES or owner not in tasks:
            problems.append(f"pod {name} of {owner} is left over: {pod['status']['phase']}")
    return problems


def find_learning_problems(profiles: Mapping[str, Object], succeeded: Mapping[str, int]) -> list[str]:
    """Return on which nodes more outcomes were learned than tasks succeeded, or an outcome twice."""
    problems = []
    for name, profile in profiles.items():
        status = profile.get("status") or {}
        twice = [uid for uid, count in Counter(status.get("recent", ())).items() if count > 1]
        if twice or status.get("outcomes", 0) > succeeded.get(name, 0):
            problems.append(
                f"{name} has learned {status.get('outcomes')} of {succeeded.get(name, 0)} outcomes, twice: {twice}"
            )
    return problems
