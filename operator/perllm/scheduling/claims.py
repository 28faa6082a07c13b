"""What tasks are given to start with, until their pods are bound: work they are charged, room, and places.

Places bound how many pods wait for kube-scheduler, and how many are being created, at a time: so the order of tasks
stays ours until the last moment, and one namespace whose creations hang leaves places to the others.
"""

from dataclasses import dataclass

from perllm.scheduling.places import Places
from perllm.scheduling.timers import Timer

MAX_UNBOUND_PODS = 32
"""Pods of one namespace that may wait for kube-scheduler at a time, of all together four times as many: enough to keep
it busy, few enough to keep the order ours."""

UNBOUND_PATIENCE_S = 10.0
"""A pod that kube-scheduler has not placed by then waits for something of its own and delays no others."""

MAX_CREATIONS = 16
"""Pods of one namespace that are being created at a time, of all together four times as many: fewer than may be written
at a time, so that statuses can be written though all of them hang."""


@dataclass(slots=True)
class Claim:
    """What a task was given to start with.

    Attributes:
        work_s: GPU seconds that its namespace was charged.
        row: the node that room is kept on; None once others may have it.
        timer: runs out when the creation of its pod takes too long, then when the pod is not seen.
        is_seen: whether the pod was seen.
    """

    work_s: float
    row: int | None
    timer: Timer
    is_seen: bool = False


class Claims:
    """The claims of all tasks that are about to start, by key."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._unbound = Places(4 * MAX_UNBOUND_PODS, UNBOUND_PATIENCE_S)
        self._creating = Places(4 * MAX_CREATIONS)

    def get(self, key: str) -> Claim | None:
        """Return the claim of a task."""
        return self._claims.get(key)

    def may_start(self, namespace: str, now_s: float) -> bool:
        """Whether a namespace may have one more pod."""
        return self._unbound.may_take(namespace, now_s) and self._creating.may_take(namespace, now_s)

    def put(self, key: str, uid: str, namespace: str, claim: Claim, now_s: float) -> None:
        """Give a task what it starts with."""
        self._claims[key] = claim
        self._unbound.take(key, namespace, now_s)
        self._creating.take(uid, namespace, now_s)

    def end_creation(self, uid: str) -> None:
        """Note that the creation of a task's pod was answered, or given up."""
        self._creating.give_back(uid)

    def pop(self, key: str) -> Claim | None:
        """Take a task's claim back."""
        self._unbound.give_back(key)
        claim = self._claims.pop(key, None)
        if claim is not None:
            claim.timer.cancel()
        return claim
