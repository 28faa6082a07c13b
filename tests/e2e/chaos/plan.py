"""Which fault comes when: drawn from a seed, so that a run, or a part of it, can be repeated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


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


PROCESSES = ("etcd", "kube-apiserver", "prometheus", "operator", "perllm-scheduler")
OPERATOR_LINK, NODES_LINK = "the operator", "the nodes"

ON_PROCESSES = (FaultKind.KILL, FaultKind.TERMINATE, FaultKind.STOP)
ON_NODES = (FaultKind.POWER_CUT, FaultKind.WRONG_CLOCK, FaultKind.NODE_DELETION)
ON_LINKS = (FaultKind.CUT, FaultKind.STALL, FaultKind.SLOW)
BLINDING = ("etcd", "kube-apiserver", "operator", OPERATOR_LINK)
"""Targets of faults while which the operator does not see the cluster."""

BY_HAND = (
    FaultKind.DELETE_FINISHED_POD,
    FaultKind.DELETE_RUNNING_POD,
    FaultKind.FORCE_POD_DELETION,
    FaultKind.UNLABEL_POD,
    FaultKind.DELETE_TASK,
    FaultKind.EDIT_STATUS,
    FaultKind.DELETE_PROFILE,
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


def plan_faults(rng: Random, nodes: Sequence[str]) -> Iterator[Fault]:
    """Yield faults for ever; each kind has a turn on each target before any has a second one."""
    while True:
        deck = _list_targets(rng, nodes)
        for kind, target in rng.sample(deck, len(deck)):
            lasts_s = rng.uniform(*LASTS_S.get(kind, (0.0, 0.0)))
            yield Fault(rng.uniform(*PAUSE_S), kind, target, lasts_s, rng.random())


def _list_targets(rng: Random, nodes: Sequence[str]) -> list[Target]:
    return [
        *((kind, process) for kind in ON_PROCESSES for process in PROCESSES),
        *((kind, rng.choice(nodes)) for kind in (*ON_NODES, FaultKind.POWER_CUT)),
        *((kind, link) for kind in ON_LINKS for link in (OPERATOR_LINK, NODES_LINK)),
        # The nodes are not under test; a connection that never ends would only make them wait for their own timeout.
        (FaultKind.SILENCE, OPERATOR_LINK),
        *((kind, "") for kind in BY_HAND),
    ]
