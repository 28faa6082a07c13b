"""What tasks hold from their start until their pods are bound: a charge to their namespace, slots, and places.

Places bound how many pods wait for kube-scheduler, and how many are being created, at a time. So PerLLM decides the
order of tasks until the last moment, and a namespace whose creations hang leaves places to the others.
"""

from dataclasses import dataclass

from perllm.scheduling.places import Places
from perllm.scheduling.timers import Timer

MAX_UNBOUND_PODS = 32
"""Pods of one namespace that may wait for kube-scheduler at a time, and a quarter of the limit for all namespaces:
enough to keep kube-scheduler busy, few enough for PerLLM to decide the order."""

UNBOUND_PATIENCE_S = 10.0
"""A pod that kube-scheduler has not placed by then waits for a reason of its own, and must not delay others."""

MAX_CREATIONS = 16
"""Pods of one namespace that may be created at a time, and a quarter of the limit for all namespaces: fewer than the
concurrent writes, so that statuses can be written even if all creations hang."""

CREATION_PATIENCE_S = 2.0
"""A creation that takes longer waits for a webhook, and holds no slots while it does."""

SIGHT_PATIENCE_S = 30.0
"""A created pod that is not seen by then was deleted at once, or changed so that it is not recognised."""


@dataclass(slots=True)
class Claim:
    """What a task holds from its start until its pod is bound.

    Attributes:
        work_s: GPU seconds that its namespace was charged.
        row: the node where slots are reserved for it; None once they are released.
        timer: runs out when creating its pod takes too long, then when the pod is not seen.
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
        """Record the claim of a task that starts, and take its places."""
        self._claims[key] = claim
        self._unbound.take(key, namespace, now_s)
        self._creating.take(uid, namespace, now_s)

    def end_creation(self, uid: str) -> None:
        """Note that the creation of a task's pod was answered, or abandoned."""
        self._creating.give_back(uid)

    def pop(self, key: str) -> Claim | None:
        """Remove a task's claim and return it."""
        self._unbound.give_back(key)
        claim = self._claims.pop(key, None)
        if claim is not None:
            claim.timer.cancel()
        return claim
