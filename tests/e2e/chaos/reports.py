"""What agents reported about served tasks, and what their requests met: the counterpart of evidence.py for pods."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from e2e.audit import Change, select
from e2e.chaos.evidence import Run, Truth, unix_s
from e2e.chaos.injector import Injected
from e2e.chaos.plan import AGENT, AGENT_NODE, AGENTS, FaultKind
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.nodes.agents import ACCOUNT, NAMESPACE

AGENT_USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
STATUS = f"{names.TASK_PLURAL}/status"
ENDING = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.POWER_CUT, FaultKind.ISOLATION)
"""What ends agents, or keeps one away for longer than its Lease lasts."""

ENDING_OPERATOR = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.LONG_ABSENCE)

TOLERANCE_S = 1.5
"""By so much the agent's times of a request may differ from those of the server on a busy machine."""

AFTERMATH_S = 60.0
UNREPORTED = "Unreported"


@dataclass(frozen=True, slots=True)
class Report:
    """A report that the API server stored.

    Attributes:
        task: namespace/name.
        uid: of the task.
        attempt: that it is about.
        current: the attempt that the task had then.
        node: where the task was placed then.
        end: Answered, Failed or Unavailable.
        begun_s: when the request was made.
        ended_s: when it had ended.
        known_s: when the report was sent.
    """

    task: str
    uid: str
    attempt: int
    current: int
    node: str
    end: str
    begun_s: float
    ended_s: float
    known_s: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that may keep an agent from reporting about requests, or the operator from waiting for that.

    Attributes:
        from_s: when it began.
        to_s: when it was over.
        what: what happened, in a few words.
        nodes: whose agents it hit.
        task: the only task that it hit; empty for all.
    """

    from_s: float
    to_s: float
    what: str
    nodes: frozenset[str]
    task: str = ""

    def hits(self, task: str, node: str, from_s: float, to_s: float) -> bool:
        """Whether it can have hit a request."""
        is_its = task == self.task if self.task else node in self.nodes
        return is_its and self.from_s <= to_s and from_s <= self.to_s


def read_reports(changes: Sequence[Change]) -> list[Report]:
    """Return the reports that the API server has stored, each once: an agent repeats one without an answer.

    An API server that is killed stores some without logging that; the statuses that the operator writes show them.
    """
    found: dict[tuple[str, int, str], Report] = {}
    for one in select(changes, STATUS, "patch"):
        if one.stored.get("kind") != names.TASK_KIND or one.user not in (AGENT_USER, OPERATOR_USER):
            continue
        run = one.stored["status"].get("run")
        if run:
            report = _read_report(one)
            found.setdefault((report.uid, report.attempt, str(run)), report)
    return list(found.values())


def list_disturbances(
    injected: Sequence[Injected], changes: Sequence[Change], nodes: Iterable[str]
) -> list[Disturbance]:
    """Return what excuses that a request is made again although it was not seen to fail.

    The API server, the operator and links may be away for as long as they like: what was placed is reported afterwards.
    """
    of_node = {AGENT: frozenset({AGENT_NODE}), AGENTS: frozenset(nodes) - {AGENT_NODE}}
    of_node[AGENT_NODE] = of_node[AGENT]
    found = [
        Disturbance(one.begun_s, one.over_s, f"{one.fault.kind} {one.hit}", of_node[one.fault.target])
        for one in injected
        if one.fault.kind in ENDING and one.fault.target in of_node
    ]
    writes = select(changes, STATUS, "patch")
    edits = (one for one in writes if one.user not in (AGENT_USER, OPERATOR_USER))
    return found + [_disturb(one, _restored_s(one, writes), injected) for one in edits]


def read_requests(truth: Iterable[Truth], reports: Iterable[Report], disturbances: Sequence[Disturbance]) -> list[Run]:
    """Return the requests that model servers began, in the order of their begins.

    The outcome is Succeeded only if an answer was stored; an answer that was complete, but not stored, is Unreported.
    """
    answers: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        answers[report.task].append(report)
    lines = sorted((line for line in truth if line["kind"] == "request"), key=lambda line: str(line["created"]))
    return [_read_request(line, answers, disturbances) for line in lines]


def _disturb(edit: Change, restored_s: float, injected: Iterable[Injected]) -> Disturbance:
    """Return what an edited status may have kept from being known: all, if the operator ended before it restored it."""
    is_lost = any(
        one.fault.target == "operator"
        and one.fault.kind in ENDING_OPERATOR
        and one.begun_s <= restored_s
        and edit.asked_s <= one.over_s
        for one in injected
    )
    from_s = -inf if is_lost else edit.asked_s
    return Disturbance(from_s, restored_s, "its status was edited", frozenset(), edit.key)


def _restored_s(edit: Change, writes: Iterable[Change]) -> float:
    """Return when the operator wrote a status again that somebody had edited; until then nobody else can know it."""
    again_s = (one.asked_s for one in writes if one.user == OPERATOR_USER and one.key == edit.key)
    return min((at_s for at_s in again_s if at_s > edit.asked_s), default=inf)


def _read_report(change: Change) -> Report:
    status: Object = change.stored["status"]
    run = status["run"]
    return Report(
        task=change.key,
        uid=change.stored["metadata"]["uid"],
        attempt=run["attempt"],
        current=status.get("attempts", 0),
        node=status.get("nodeName", ""),
        end=run["end"],
        begun_s=unix_s(run["startTime"]),
        ended_s=unix_s(run["endTime"]),
        known_s=change.asked_s,
    )


def _read_request(
    line: Mapping[str, Any], answers: Mapping[str, list[Report]], disturbances: Sequence[Disturbance]
) -> Run:
    task, node, outcome = line["task"], line["node"], line["outcome"]
    begun_s, ended_s = unix_s(line["created"]), unix_s(line["finished"])
    report = next((one for one in answers.get(task, ()) if _is_about(one, node, begun_s, ended_s)), None)
    known_s = inf if report is None else report.known_s
    if outcome == "Succeeded" and (report is None or report.end != "Answered"):
        outcome = UNREPORTED
    if report is not None and report.end in ("Failed", "Unavailable"):
        outcome = "Failed"
    until_s = min(known_s, ended_s + AFTERMATH_S)
    hits = (one.what for one in disturbances if one.hits(task, node, begun_s, until_s))
    return Run(task, node, outcome, begun_s, ended_s, known_s, tuple(hits))


def _is_about(report: Report, node: str, begun_s: float, ended_s: float) -> bool:
    is_within = report.begun_s - TOLERANCE_S <= begun_s and ended_s <= report.ended_s + TOLERANCE_S
    return report.node == node and is_within
