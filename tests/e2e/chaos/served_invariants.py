"""What must hold of served tasks after any faults, besides what holds of all: one line per violation."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from e2e.audit import Change, select
from e2e.chaos.evidence import Run, Story
from e2e.chaos.invariants import Span, due_s, tell
from e2e.chaos.reports import AGENT_USER, UNREPORTED, Report
from e2e.stage import condition
from perllm.api import names
from perllm.api.task import OnDeadlineMissed

FREE_S = 1.0
"""By then the slot of a request that is not wanted any more is free."""

MARGIN_S = 1.0
"""A busy machine may need so much longer."""


def find_report_errors(stories: Iterable[Story], reports: Iterable[Report]) -> list[str]:
    """One result of each attempt is accepted, of the current attempt only; and one answer of each task."""
    by_task: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        by_task[report.uid].append(report)
    problems = []
    for story in stories:
        own = by_task[story.uid]
        attempts = [report.attempt for report in own]
        answered = [report.attempt for report in own if report.end == "Answered"]
        problems += [
            f"{story.key}: a report of attempt {one.attempt} was accepted during attempt {one.current}"
            for one in own
            if one.attempt != one.current
        ]
        was_edited = any("edited" in hit for run in story.runs for hit in run.hits)
        if not was_edited and (len(set(attempts)) < len(attempts) or len(answered) > 1):
            problems.append(f"{story.key}: several results were accepted: {own}")
        status = story.status
        if status.get("phase") == "Succeeded" and status.get("run", {}).get("attempt") != status.get("attempts"):
            problems.append(f"{story.key} has succeeded with the result of another attempt: {status}")
    return problems


def find_unfounded_failures(stories: Iterable[Story]) -> list[str]:
    """A task fails only at a deadline that ends it, or because a server was lost that had begun to answer it."""
    problems = []
    for story in stories:
        if story.status.get("phase") not in ("Failed", "Rejected") or story.is_removed:
            continue
        is_ended = (
            _is_ended_at_deadline(story) and condition(story.task, "Completed").get("reason") == "DeadlineExceeded"
        )
        if not is_ended and not any(run.outcome == "Failed" for run in story.runs):
            runs = ", ".join(map(tell, story.runs)) or "never run"
            problems.append(f"{story.key} is {story.status['phase']}: {story.status.get('message')}; it was {runs}")
    return problems


def find_late_releases(stories: Iterable[Story], changes: Sequence[Change], blind: Sequence[Span]) -> list[str]:
    """The slot of a task that was deleted, or was ended at its deadline, is free soon.

    Args:
        stories: of all tasks.
        changes: that the API server has made.
        blind: when faults kept agents from seeing what is wanted of them.
    """
    return [
        f"{story.key} was not wanted any more {run.finished_s - unwanted_s:.2f} s before its end, and was {tell(run)}"
        for story, run, unwanted_s in _list_releases(stories, changes, blind)
        if run.finished_s > unwanted_s + FREE_S + MARGIN_S
    ]


def measure_releases(stories: Iterable[Story], changes: Sequence[Change], blind: Sequence[Span]) -> list[float]:
    """Return how long each slot was occupied after its task was not wanted any more, in seconds."""
    return [run.finished_s - unwanted_s for _, run, unwanted_s in _list_releases(stories, changes, blind)]


def count_wasted(stories: Iterable[Story]) -> int:
    """Return how many requests were answered to their end, and their answers were not accepted."""
    return sum(run.outcome == UNREPORTED for story in stories for run in story.runs)


def find_repeated_outages(lines: Iterable[str], agents: int, disturbances: int) -> list[str]:
    """Return the outages that agents logged more often than something was disturbed; they share a log.

    Args:
        lines: of the log of several agents.
        agents: how many.
        disturbances: how many faults can have kept them from the API server.
    """
    begins = [line.partition("perllm.cluster.outages: ")[2].partition(": ")[0] for line in lines if _begins(line)]
    return [
        f"agents.log: {begins.count(topic)} outages of {topic} were logged by {agents} agents, after {disturbances}"
        for topic in sorted(set(begins))
        if begins.count(topic) > agents * disturbances
    ]


def _begins(line: str) -> bool:
    return line.rstrip().endswith("; retrying until it works")


def _list_releases(
    stories: Iterable[Story], changes: Sequence[Change], blind: Sequence[Span]
) -> Iterator[tuple[Story, Run, float]]:
    """Yield requests that were in process when their tasks stopped being wanted, and when that was."""
    deleted_s: Mapping[str, float] = {
        one.key: one.asked_s for one in select(changes, names.TASK_PLURAL, "delete") if one.user != AGENT_USER
    }
    for story in stories:
        ends_s = [deleted_s[story.key]] if story.key in deleted_s else []
        if story.task and _is_ended_at_deadline(story):
            ends_s.append(due_s(story))
        for run in story.runs:
            unwanted_s = min(ends_s, default=run.finished_s)
            is_blind = any(from_s < run.finished_s and unwanted_s < to_s for from_s, to_s in blind)
            if run.started_s < unwanted_s < run.finished_s and not is_blind:
                yield story, run, unwanted_s


def _is_ended_at_deadline(story: Story) -> bool:
    return bool(story.task["spec"].get("onDeadlineMissed") == OnDeadlineMissed.TERMINATE)
