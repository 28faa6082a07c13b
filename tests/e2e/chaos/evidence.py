"""What really happened to each task: from the nodes' log of containers, and the API server's log of changes.

Neither depends on PerLLM. All times are Unix seconds of this machine's clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any

from e2e.audit import Change, select
from e2e.chaos.rig import NODES_USER
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.nodes.registration import NODES
from perllm_lab.nodes.writer import FINAL_PHASES

RESOLUTION_S = 1.0
"""Kubernetes writes whole seconds."""

Truth = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """What somebody did to a pod or a node, in a few words; `hides` if PerLLM cannot see the pod any more."""

    at_s: float
    what: str
    hides: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A container that a node has started.

    Attributes:
        task: namespace/name of its task.
        node: where it ran.
        outcome: Succeeded, Failed, Deleted or Lost.
        started_s: when it started.
        finished_s: when it ended.
        known_s: when the API server stored that it had ended; infinite if it never did.
        hits: what others than PerLLM did to its pod or its node before the API server knew that it had ended. Taking
            the label of a pod counts whenever it was done: PerLLM no longer sees the pod, as a Job would not.
    """

    task: str
    node: str
    outcome: str
    started_s: float
    finished_s: float
    known_s: float
    hits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to a task that was created.

    Attributes:
        key: namespace/name.
        task: as it was last stored; empty if it was created but never changed, and is gone.
        exists: whether it exists at the end.
        is_expired: whether PerLLM has deleted it.
        is_removed: whether somebody else has deleted it.
        runs: its containers, in the order of their starts.
    """

    key: str
    task: Object
    exists: bool
    is_expired: bool
    is_removed: bool
    runs: tuple[Run, ...]

    @property
    def uid(self) -> str:
        return str(self.task.get("metadata", {}).get("uid", ""))

    @property
    def status(self) -> Object:
        """The status that was stored last."""
        status: Object = self.task.get("status") or {}
        return status

    @property
    def successes(self) -> list[Run]:
        """Its containers that ran to their end without an error."""
        return [run for run in self.runs if run.outcome == "Succeeded"]


def read_runs(truth: Iterable[Truth], changes: Sequence[Change]) -> list[Run]:
    """Return the containers that were started, in the order of their starts."""
    ends_s, hits = _collect_ends(changes), _collect_hits(changes)
    runs = [_read_run(line, ends_s, hits) for line in truth if line["kind"] == "pod"]
    return sorted((run for run in runs if run.started_s < run.finished_s), key=lambda run: run.started_s)


def read_stories(
    created: Iterable[str], present: Mapping[str, Object], runs: Iterable[Run], changes: Sequence[Change]
) -> list[Story]:
    """Return what happened to each task.

    Args:
        created: keys of all that were created.
        present: those that exist at the end, by key.
        runs: of all tasks.
        changes: that the API server has made.
    """
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    last = _collect_tasks(changes)
    deletions = select(changes, names.TASK_PLURAL, "delete")
    expired, removed = ({one.key for one in deletions if (one.user == OPERATOR_USER) is ours} for ours in (True, False))
    return [
        Story(
            key,
            present.get(key) or last.get(key, {}),
            key in present,
            key in expired,
            key in removed,
            tuple(by_task[key]),
        )
        for key in created
    ]


def _collect_tasks(changes: Iterable[Change]) -> dict[str, Object]:
    """Return each task as it was last stored, apart from what others wrote into its status."""
    tasks: dict[str, Object] = {}
    for one in changes:
        if one.kind == f"{names.TASK_PLURAL}/status" and one.user != OPERATOR_USER:
            continue
        if one.stored.get("kind") == names.TASK_KIND:
            tasks[_key(one.stored)] = one.stored
        elif one.kind == f"{names.TASK_PLURAL}/status" and one.may_be_made:
            # Whoever asked for it was killed before the answer; a later change shows whether it was made.
            before = tasks.get(one.key, {})
            tasks[one.key] = before | {"status": _apply(before.get("status") or {}, one.sent)}
    return tasks


def _apply(status: Object, sent: Object | list[Object]) -> Object:
    """Return a status after a JSON patch, which replaces it as PerLLM sends it, or after a merge patch."""
    if isinstance(sent, list):
        replaced: Object = sent[-1]["value"]
        return replaced
    return status | (sent.get("status") or {})


def _read_run(line: Truth, ends_s: Mapping[str, list[float]], hits: Mapping[str, list[Hit]]) -> Run:
    pod, node = f"{line['namespace']}/{line['pod']}", line["node"]
    from_s, finished_s = unix_s(line["created"]) - RESOLUTION_S, unix_s(line["finished"])
    known_s = min((at_s for at_s in ends_s[pod] if at_s >= finished_s - RESOLUTION_S), default=inf)
    found = [hit.what for hit in (*hits[pod], *hits[node]) if from_s <= hit.at_s <= (inf if hit.hides else known_s)]
    lost = ["the power of its node was cut"] if line["outcome"] == "Lost" else []
    started_s, task = unix_s(line["started"]), f"{line['namespace']}/{line['task']}"
    return Run(task, node, line["outcome"], started_s, finished_s, known_s, (*lost, *found))


def _collect_ends(changes: Iterable[Change]) -> Mapping[str, list[float]]:
    """Return when the API server stored that a pod has ended, by its key."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in select(changes, "pods/status", "patch"):
        if one.user == NODES_USER and _apply({}, one.sent).get("phase") in FINAL_PHASES:
            found[one.key].append(one.asked_s)
    return found


def _collect_hits(changes: Sequence[Change]) -> Mapping[str, list[Hit]]:
    """Return what others than PerLLM and the nodes themselves did to pods and nodes, by key."""
    found: dict[str, list[Hit]] = defaultdict(list)
    for one in _by_others(select(changes, "pods", "delete", "patch")):
        found[one.key].append(Hit(one.asked_s, f"{one.verb} of its pod by {one.user}", one.verb == "patch"))
    for one in _by_others(select(changes, NODES.rpartition("/")[2], "delete")):
        found[one.key].append(Hit(one.asked_s, f"deletion of its node by {one.user}"))
    return found


def _by_others(changes: Iterable[Change]) -> Iterator[Change]:
    return (one for one in changes if one.user not in (OPERATOR_USER, NODES_USER))


def unix_s(text: str) -> float:
    """Return a time of RFC 3339 as Unix time."""
    return datetime.fromisoformat(text).timestamp()


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
