"""What must hold after any faults: each function returns one line per violation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from e2e.audit import Change, select
from e2e.chaos.evidence import Run, Story
from perllm.api import names
from perllm.api.quantities import parse_duration_s
from perllm.cluster.client import Object
from perllm.learning.node_state import read_state
from perllm.learning.recent import CAPACITY, ID_LENGTH
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.trace_replay import FINAL_PHASES

Span = tuple[float, float]

SIGHT_S = 3.0
"""An operator on a busy machine may see so much later what the API server has stored."""

AWAY_S = 30.0
"""An outcome is learned once its energy is measured. A node that leaves before that is known by its type only."""


def find_losses(stories: Iterable[Story]) -> list[str]:
    """Every task has ended, unless somebody has deleted it; PerLLM deletes only those that have ended."""
    problems = []
    for story in stories:
        phase = story.status.get("phase")
        if story.is_removed and not story.exists:
            continue
        if not story.exists and not story.is_expired:
            problems.append(f"{story.key} is gone, and nobody has deleted it; it was {phase}")
        elif phase not in FINAL_PHASES:
            what = "is still" if story.exists else "was deleted by PerLLM when it was"
            problems.append(f"{story.key} {what} {phase}: {story.status.get('message')}")
    return problems


def find_repetitions(stories: Iterable[Story]) -> list[str]:
    """A container is started again only if the one before has failed, or was hit before its end was known."""
    problems = []
    for story in stories:
        for before, after in zip(story.runs, story.runs[1:], strict=False):
            if before.outcome != "Failed" and not before.hits:
                problems.append(f"{story.key} started on {tell(after)} although it was {tell(before)}")
    return problems


def find_contradictions(stories: Iterable[Story], blind: Sequence[Span]) -> list[str]:
    """A task has succeeded if and only if one of its containers has.

    Except if it was ended at its deadline, and the operator could not see until then that the container had succeeded.

    Args:
        stories: of all tasks.
        blind: when faults kept the operator from seeing the cluster.
    """
    problems = []
    for story in stories:
        has_succeeded = story.status.get("phase") == "Succeeded"
        if has_succeeded and not story.successes:
            problems.append(
                f"{story.key} is Succeeded although it was {', '.join(map(tell, story.runs)) or 'never run'}"
            )
        if has_succeeded or story.is_removed or story.status.get("phase") not in FINAL_PHASES:
            continue
        ended_s = due_s(story)
        missed = [run for run in story.successes if not run.hits and run.known_s < ended_s - SIGHT_S]
        if missed and not any(from_s < ended_s and to_s > missed[0].known_s for from_s, to_s in blind):
            problems.append(f"{story.key} is {story.status['phase']} although it was {tell(missed[0])}")
    return problems


def find_learning_errors(
    stories: Sequence[Story], profiles: Mapping[str, Object], changes: Sequence[Change], absences: Sequence[Span]
) -> list[str]:
    """Each success is learned exactly once, on its node.

    What was learned may be lost if a profile was deleted, by hand or with its node, and the operator was not there then
    or ended before it wrote the profile again: nothing is left to know it from.

    Args:
        stories: of all tasks.
        profiles: by name, at the end.
        changes: that the API server has made.
        absences: from when to when the operator was not there.
    """
    learned, successes = _collect_learned(profiles), _index_successes(stories)
    forgotten, away = _find_forgotten(changes, absences), _find_away(changes)
    problems = _find_double_counts(profiles, successes)
    missing: dict[str, list[str]] = defaultdict(list)
    for story in stories:
        nodes, runs = learned[story.uid[:ID_LENGTH]], story.successes
        if len(nodes) > max(len(runs), 1):
            problems.append(f"{story.key} was learned on {nodes} and has succeeded on {[run.node for run in runs]}")
        if nodes or story.is_removed or story.status.get("phase") != "Succeeded" or len(runs) != 1:
            continue
        (run,) = runs
        is_excused = run.hits or run.node in forgotten or _is_within(run.finished_s, away[run.node])
        if not is_excused:
            missing[run.node].append(f"{story.key} was not learned; {tell(run)}, {story.status.get('observed')}")
    for node, lines in missing.items():
        # A profile counts all outcomes, and knows the last ones by id, those of runs ended at their deadlines included.
        profile = profiles.get(node, {})
        known = successes[node].intersection(_read_recent(profile))
        if len(lines) > count_outcomes(profile) - len(known):
            problems += lines
    return problems


def find_leftovers(pods: Iterable[Object], tasks: Mapping[str, Object]) -> list[str]:
    """No pod runs, belongs to no task, or is retained although its task has ended.

    To remove a pod that has ended, was deleted and is released is up to its kubelet, and the simulated ones do not see
    pods that have ended.
    """
    problems = []
    for pod in pods:
        metadata, phase = pod["metadata"], pod["status"]["phase"]
        key, owner = f"{metadata['namespace']}/{metadata['name']}", metadata["ownerReferences"][0]["name"]
        kept_by = [one for one in metadata.get("finalizers", ()) if one.startswith(names.GROUP)]
        is_leaving = "deletionTimestamp" in metadata
        is_orphan = f"{metadata['namespace']}/{owner}" not in tasks and not is_leaving
        if is_orphan or kept_by or phase not in FINAL_PHASES:
            leaving = ", is being deleted" if is_leaving else ""
            problems.append(f"pod {key} of {owner} is left over: {phase}{leaving}, finalizers {kept_by}")
    return problems


def find_drift(gauges: Mapping[str, float | None]) -> list[str]:
    """Nothing counts as unfinished once everything has ended; a gauge that does not exist is None."""
    return [f"{name} is {value:g} after the last task" for name, value in gauges.items() if value]


def count_outcomes(profile: Object) -> int:
    """Return how many outcomes a profile was learned from."""
    return int((profile.get("status") or {}).get("outcomes", 0))


def _collect_learned(profiles: Mapping[str, Object]) -> dict[str, list[str]]:
    """Return on which nodes each outcome was learned, by its shortened id."""
    learned: dict[str, list[str]] = defaultdict(list)
    for node, profile in profiles.items():
        for short in _read_recent(profile):
            learned[short].append(node)
    return learned


def _index_successes(stories: Iterable[Story]) -> Mapping[str, set[str]]:
    """Return the shortened ids of the tasks that have succeeded on each node.

    A task that was ended at its deadline is known by id too, but is no outcome, even if a run has succeeded too late.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for story in stories:
        if story.status.get("phase") == "Failed":
            continue
        for run in story.successes:
            found[run.node].add(story.uid[:ID_LENGTH])
    return found


def _find_double_counts(profiles: Mapping[str, Object], successes: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes that have learned from more outcomes than the tasks that succeeded there, of those they name.

    They also name tasks that were ended at their deadline, which do not count as outcomes.
    """
    problems = []
    for node, profile in profiles.items():
        recent, count = _read_recent(profile), count_outcomes(profile)
        if len(recent) < CAPACITY and count > len(successes[node].intersection(recent)):
            problems.append(f"{node} counts {count} outcomes of {len(successes[node])} successes, and names {recent}")
    return problems


def _read_recent(profile: Object) -> Sequence[str]:
    return read_state(profile["status"]).recent if count_outcomes(profile) else ()


def _find_forgotten(changes: Sequence[Change], absences: Sequence[Span]) -> set[str]:
    """Return the nodes whose profile was deleted, and the operator was not there until it was written again."""
    kind = names.NODE_PROFILE_PLURAL
    writes = [one for one in select(changes, f"{kind}/status", "patch", "update") if one.user == OPERATOR_USER]
    forgotten = set()
    for deletion in select(changes, kind, "delete"):
        again_s = min(
            (one.asked_s for one in writes if one.key == deletion.key and one.asked_s > deletion.asked_s),
            default=float("inf"),
        )
        if any(from_s <= again_s and to_s >= deletion.asked_s for from_s, to_s in absences):
            forgotten.add(deletion.key)
    return forgotten


def _find_away(changes: Sequence[Change]) -> Mapping[str, list[Span]]:
    """Return from when to when each node that was deleted was away, with a margin."""
    away: dict[str, list[Span]] = defaultdict(list)
    for one in select(changes, "nodes", "delete"):
        away[one.key].append((one.asked_s - AWAY_S, one.asked_s + AWAY_S))
    return away


def _is_within(at_s: float, spans: Iterable[Span]) -> bool:
    return any(from_s <= at_s <= to_s for from_s, to_s in spans)


def due_s(story: Story) -> float:
    """Return the Unix time of a task's deadline."""
    # Somebody may have removed the status.
    received = story.status.get("receivedTime") or story.task["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(received).timestamp() + parse_duration_s(story.task["spec"]["deadline"])


def tell(run: Run) -> str:
    """Return what became of a run, in a few words."""
    hits = f", {'; '.join(run.hits)}" if run.hits else ""
    return f"{run.outcome} on {run.node} from {_clock(run.started_s)} to {_clock(run.finished_s)}{hits}"


def _clock(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s):%H:%M:%S.%f}"[:-3]
