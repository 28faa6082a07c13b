"""Tasks run while one version is replaced by another and back; each ends, runs once and is learned once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.table import Table

from e2e.chaos.invariants import count_outcomes
from e2e.command import Say
from e2e.stage import Stage, phases, wait_until
from e2e.upgrade.release import Release, has_agents
from perllm.api import names
from perllm.api.task_status import RunsAs
from perllm.cluster.client import Object
from perllm_lab.trace_replay import FINAL_PHASES

FIRST_TASKS = 40
OUTPUT_TOKENS = 700
END_S, LEARN_S, CLEAR_S = 240.0, 60.0, 90.0


@dataclass(slots=True)
class UpgradeFindings:
    """The outcome of a run.

    Attributes:
        learned: outcomes in the learned state when each version had been started, and at the end, with a description.
        phases: how many tasks ended in which phase.
        repeated: requests that were answered though the answer of another one counted.
        problems: one line per defect.
    """

    learned: list[tuple[str, int]] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    problems: list[str] = field(default_factory=list)

    def render(self) -> Table:
        """Return a table of what was learned when, with a summary."""
        table = Table("when", "outcomes learned", title="Upgrade", title_justify="left")
        for when, count in self.learned:
            table.add_row(when, str(count))
        table.caption = (
            f"{self.phases.total()} tasks: {dict(self.phases)}; {self.repeated} requests answered again; "
            f"{len(self.problems)} problems"
        )
        return table

    def list_problems(self) -> Sequence[str]:
        """Return one line per defect."""
        return self.problems


@dataclass(slots=True)
class UpgradeExperiment:
    """One run on a release that is not installed yet.

    Attributes:
        release: of the chart.
        stage: a namespace for the tasks.
        old: source of the version before.
        new: source of this version.
        say: is given a line about each step.
        served: the tasks that are served tasks.
    """

    release: Release
    stage: Stage
    old: Path
    new: Path
    say: Say
    served: list[str] = field(default_factory=list)
    findings: UpgradeFindings = field(default_factory=UpgradeFindings)

    async def run(self, tasks: int) -> UpgradeFindings:
        """Upgrade, roll back and upgrade again, each with so many more tasks under way.

        Half of them are served tasks if both versions know these.
        """
        created = await self.stage.create_many("first", FIRST_TASKS)
        await self.stage.wait_all_settled(created, timeout_s=END_S)
        await self.stage.wait_learned(FIRST_TASKS, timeout_s=LEARN_S)
        await self._note_learned("before the upgrade")
        changes = {
            "upgraded": partial(self.release.install, self.new),
            "rolled back": partial(self.release.roll_back, self.old),
            "upgraded again": partial(self.release.install, self.new),
        }
        for number, (what, change) in enumerate(changes.items()):
            created += await self._create(number, tasks)
            await self._wait_finished(len(created) - 4 * tasks // 5)
            await change()
            await self._note_learned(what)
        await self._judge(created)
        await self._clear()
        return self.findings

    async def _create(self, number: int, tasks: int) -> list[str]:
        count = tasks // 2 if has_agents(self.old) else 0
        pods = await self.stage.create_many(f"task-{number}", tasks - count, output_tokens=OUTPUT_TOKENS)
        served = await self.stage.create_many(
            f"served-{number}", count, output_tokens=OUTPUT_TOKENS, runs_as=RunsAs.REQUEST
        )
        self.served += served
        return [*pods, *served]

    async def _wait_finished(self, count: int) -> None:
        """Wait until so many tasks have ended, but not all."""
        counts: Counter[str] = Counter()

        async def have_finished() -> bool:
            nonlocal counts
            counts = phases(self.stage.watched)
            return sum(counts[phase] for phase in FINAL_PHASES) >= count

        await wait_until(have_finished, timeout_s=END_S, describe=lambda: f"not {count} tasks have ended: {counts}")
        self.say(f"tasks: {dict(counts)}")
        assert counts.keys() - FINAL_PHASES, "the tasks are too short to show anything"

    async def _note_learned(self, when: str) -> None:
        self.findings.learned.append((when, await self.stage.learned()))
        self.say(f"{when}: {self.findings.learned[-1][1]} outcomes learned")

    async def _judge(self, created: Sequence[str]) -> None:
        problems = self.findings.problems
        try:
            await self.stage.wait_all_settled(created, timeout_s=END_S)
            await self.stage.wait_learned(len(created), timeout_s=LEARN_S)
        except AssertionError as error:
            problems.append(str(error))
        await self._note_learned("at the end")
        tasks = await self.stage.tasks()
        self.findings.phases = phases(tasks)
        runs, requests = self.stage.completed_runs(), self.stage.completed_requests()
        self.findings.repeated = sum(requests[name] - 1 for name in self.served)
        # A request whose report was not accepted before its agent ended is made again.
        problems += _find_task_problems(
            created, tasks, {**runs, **{name: min(requests[name], 1) for name in self.served}}
        )
        problems += _find_learning_problems(tasks.values(), await self.stage.profiles())

    async def _clear(self) -> None:
        """Delete all tasks; their pods must follow."""
        await self.stage.lab.client.delete(names.tasks_path(self.stage.namespace), {"propagationPolicy": "Background"})

        async def is_empty() -> bool:
            return not (await self.stage.pods())

        try:
            await wait_until(
                is_empty, timeout_s=CLEAR_S, describe=lambda: "pods are left after their tasks were deleted"
            )
        except AssertionError as error:
            self.findings.problems.append(str(error))


def _find_task_problems(created: Sequence[str], tasks: Mapping[str, Object], runs: Mapping[str, int]) -> list[str]:
    """Every task has succeeded, and ran once."""
    ends = {name: task["status"] for name, task in tasks.items() if task["status"]["phase"] != "Succeeded"}
    return [
        *(f"{name} is lost" for name in created if name not in tasks),
        *(f"{name} is {status['phase']}: {status.get('message')}" for name, status in ends.items()),
        *(f"{name} has run {runs.get(name, 0)} times" for name in created if runs.get(name, 0) != 1),
    ]


def _find_learning_problems(tasks: Iterable[Object], profiles: Mapping[str, Object]) -> list[str]:
    """Every node has learned from each task once."""
    counts = Counter(task["status"].get("nodeName") for task in tasks)
    learned = {name: count_outcomes(profile) for name, profile in profiles.items()}
    return [
        f"{node} has learned {learned.get(node, 0)} of {count} outcomes"
        for node, count in counts.items()
        if learned.get(node, 0) != count
    ]
