"""Which fault comes when: drawn from a seed, so that a run, or a part of it, can be repeated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from perllm.api.task_status import RunsAs


class FaultKind(StrEnum):
    """What is done to the cluster."""

    KILL = "kill"
    TERMINATE = "terminate"
    STOP = "stop"
    POWER_CUT = "cut the power of"
    WRONG_CLOCK = "set the clock of"
    NODE_DELETION = "delete and re-create the node"
    CUT = "cut the connections of"
    STALL = "stall the connections of"
    SILENCE = "silence the present connections of"
    SLOW = "slow the connections of"
    DELETE_FINISHED_POD = "delete a finished pod"
    DELETE_RUNNING_POD = "delete a running pod"
    FORCE_POD_DELETION = "force the deletion of a running pod"
    UNLABEL_POD = "take the label of a pod"
    DELETE_TASK = "delete a task"
    EDIT_STATUS = "edit the status of a task"
    DELETE_PROFILE = "delete a profile"
    LONG_ABSENCE = "end for a minute"
    ISOLATION = "isolate for a minute"
    SERVER_CRASH = "end the model server of"
    REFUSALS = "let half of the model servers refuse requests"
    DELETE_RUNNING_TASK = "delete a running task"


CONTROL_PLANE = ("etcd", "kube-apiserver", "prometheus", "operator")
AGENT_NODE = "h100-0"
"""The node whose agent is a process of its own, so that it can fail alone."""

AGENTS, AGENT = "agents", f"the agent of {AGENT_NODE}"
PROCESSES = {
    RunsAs.POD: (*CONTROL_PLANE, "perllm-scheduler"),
    RunsAs.REQUEST: (*CONTROL_PLANE, AGENTS, AGENT),
}
OPERATOR_LINK, NODES_LINK, AGENTS_LINK, AGENT_LINK = "the operator", "the nodes", "the agents", AGENT

ON_PROCESSES = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.STOP, FaultKind.LONG_ABSENCE)
ON_NODES = (FaultKind.POWER_CUT, FaultKind.WRONG_CLOCK, FaultKind.NODE_DELETION)
ON_SERVERS = (FaultKind.SERVER_CRASH, FaultKind.REFUSALS)
ON_LINKS = (FaultKind.CUT, FaultKind.STALL, FaultKind.SLOW)
BLINDING = ("etcd", "kube-apiserver", "operator", OPERATOR_LINK)
"""Targets of faults while which the operator does not see the cluster."""

BLINDING_AGENTS = ("etcd", "kube-apiserver", AGENTS, AGENT, AGENTS_LINK, AGENT_NODE)
"""Targets of faults while which agents do not see what is wanted of them."""

BY_HAND = (
    FaultKind.DELETE_FINISHED_POD,
    FaultKind.DELETE_RUNNING_POD,
    FaultKind.FORCE_POD_DELETION,
    FaultKind.UNLABEL_POD,
    FaultKind.DELETE_TASK,
    FaultKind.EDIT_STATUS,
    FaultKind.DELETE_PROFILE,
    FaultKind.DELETE_RUNNING_TASK,
)

PAUSE_S = (2.0, 6.0)
LASTS_S = {
    FaultKind.KILL: (0.3, 3.0),
    FaultKind.TERMINATE: (0.3, 3.0),
    FaultKind.STOP: (1.0, 6.0),
    FaultKind.POWER_CUT: (5.0, 40.0),
    FaultKind.WRONG_CLOCK: (10.0, 30.0),
    FaultKind.NODE_DELETION: (1.0, 10.0),
    FaultKind.CUT: (1.0, 8.0),
    FaultKind.STALL: (2.0, 15.0),
    FaultKind.SLOW: (5.0, 15.0),
    FaultKind.LONG_ABSENCE: (55.0, 65.0),
    FaultKind.ISOLATION: (55.0, 65.0),
    FaultKind.SERVER_CRASH: (0.5, 20.0),
    FaultKind.REFUSALS: (5.0, 30.0),
}

Target = tuple[FaultKind, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        pause_s: seconds since the fault before it began.
        kind: what is done.
        target: the process, node or link that it is done to; empty if that is chosen among what exists then.
        lasts_s: after how many seconds it is undone.
        draw: in [0, 1); decides what else there is to choose.
    """

    pause_s: float
    kind: FaultKind
    target: str
    lasts_s: float
    draw: float


def plan_faults(rng: Random, nodes: Sequence[str], runs_as: RunsAs) -> Iterator[Fault]:
    """Yield faults for ever; each kind has a turn on each target before any has a second one."""
    list_targets = {RunsAs.POD: _list_targets_of_pods, RunsAs.REQUEST: _list_targets_of_requests}[runs_as]
    while True:
        deck = list_targets(rng, nodes)
        for kind, target in rng.sample(deck, len(deck)):
            lasts_s = rng.uniform(*LASTS_S.get(kind, (0.0, 0.0)))
            yield Fault(rng.uniform(*PAUSE_S), kind, target, lasts_s, rng.random())


def _list_targets_of_pods(rng: Random, nodes: Sequence[str]) -> list[Target]:
    return [
        *_list_processes(RunsAs.POD),
        *((kind, rng.choice(nodes)) for kind in (*ON_NODES, FaultKind.POWER_CUT)),
        *((kind, link) for kind in ON_LINKS for link in (OPERATOR_LINK, NODES_LINK)),
        # The nodes are not under test; a connection that never ends would only make them wait for their own timeout.
        (FaultKind.SILENCE, OPERATOR_LINK),
        *((kind, "") for kind in BY_HAND if kind is not FaultKind.DELETE_RUNNING_TASK),
    ]


def _list_targets_of_requests(rng: Random, nodes: Sequence[str]) -> list[Target]:
    return [
        *_list_processes(RunsAs.REQUEST),
        (FaultKind.LONG_ABSENCE, "kube-apiserver"),
        (FaultKind.ISOLATION, AGENT_LINK),
        # With the power of a node its agent ends too.
        (FaultKind.POWER_CUT, AGENT_NODE),
        *((FaultKind.SERVER_CRASH, node) for node in (AGENT_NODE, *rng.sample(nodes, 2))),
        *[(FaultKind.REFUSALS, "")] * 2,
        *((kind, link) for kind in (*ON_LINKS, FaultKind.SILENCE) for link in (OPERATOR_LINK, AGENTS_LINK)),
        *[(FaultKind.DELETE_RUNNING_TASK, "")] * 3,
        *((kind, "") for kind in (FaultKind.DELETE_TASK, FaultKind.EDIT_STATUS, FaultKind.DELETE_PROFILE)),
    ]


def _list_processes(runs_as: RunsAs) -> list[Target]:
    kinds = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.STOP)
    return [(kind, process) for kind in kinds for process in PROCESSES[runs_as]]
