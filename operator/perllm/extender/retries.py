"""Has kube-scheduler retry the pods that the extender found no node for.

kube-scheduler retries such a pod only when an object of the cluster changes. The end of a request to a model server, a
circuit that closes and a metric are no such changes, and at the end of a pod it may ask before the operator has seen
that end. So each rejected pod is examined again while it waits, and once there is room for it a label of it is changed,
which makes kube-scheduler retry this pod and no other. A pod that still gets no node, because of a rule that only
kube-scheduler knows, is retried after growing pauses.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.writes import Write, WriteQueue
from perllm.guard import Guard
from perllm.placement.request import PlacementRequest

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often rejected pods are examined; kube-scheduler's own pause after a failure is 1 to 2 s."""

MAX_RETRIED = 8
"""Pods that are retried at a time."""

MAX_EXAMINED = 8
"""Kinds of requests that are examined at a time, each at the cost of a decision."""

MAX_WAITING = 4096
"""Rejected pods that are remembered; beyond that, those rejected the longest ago wait for a change of the cluster."""

FIRST_PAUSE_S, MAX_PAUSE_S = 2.0, 64.0

GONE_S = 900.0
"""kube-scheduler tries every pod again within 5 minutes; one that it does not ask about for this long is gone."""


@dataclass(slots=True)
class RejectedPod:
    """A pod that waits for a node.

    Attributes:
        key: namespace/name.
        request: what it asks of placement; None if that is not known, because of its annotations.
        kind: the part of it that room depends on.
        pause_s: how long it waits after its next retry; grows while there is room for it.
        next_s: when it may be retried next.
        noted_s: when it was last rejected.
    """

    key: str
    request: PlacementRequest | None = None
    kind: PlacementRequest | None = None
    pause_s: float = FIRST_PAUSE_S
    next_s: float = 0.0
    noted_s: float = 0.0

    @property
    def due_s(self) -> float:
        """Unix time of its deadline; 0 if that is not known."""
        return 0.0 if self.request is None else self.request.due_s

    def ask(self, request: PlacementRequest | None) -> None:
        """Replace what it asks for."""
        self.request, self.kind = request, None if request is None else _find_kind(request)


class Retries:
    """The rejected pods, by uid.

    Args:
        client: the API server.
        writes: the queue of writes.
        has_room: whether a node would take a pod now.
        guard: contains failures about single pods.
        now_s: monotonic clock.
        unix_now: wall clock.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        *,
        has_room: Callable[[PlacementRequest], bool],
        guard: Guard,
        now_s: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._client = client
        self._writes = writes
        self._has_room = has_room
        self._guard = guard
        self._now_s = now_s
        self._unix_now = unix_now
        self._waiting: dict[str, RejectedPod] = {}
        self._examined: frozenset[PlacementRequest] = frozenset()

    def __contains__(self, uid: object) -> bool:
        return uid in self._waiting

    def note_rejected(self, uid: str, key: str, request: PlacementRequest | None) -> None:
        """Note that a pod got no node."""
        waiting = self._waiting.pop(uid, None) or RejectedPod(key)
        waiting.noted_s = self._now_s()
        waiting.ask(request)
        self._waiting[uid] = waiting
        while len(self._waiting) > MAX_WAITING or waiting.noted_s - self._find_oldest_s() >= GONE_S:
            del self._waiting[next(iter(self._waiting))]

    def _find_oldest_s(self) -> float:
        return next(iter(self._waiting.values())).noted_s

    def forget(self, uid: str) -> None:
        """Forget a pod: it may get a node now, or is gone."""
        self._waiting.pop(uid, None)

    def retry(self, uid: str) -> None:
        """Retry a pod at once, if it waits: what it asks for has changed."""
        waiting = self._waiting.get(uid)
        if waiting is not None:
            self._retry(uid, waiting)

    async def run(self) -> None:
        """Examine rejected pods until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.examine()

    def examine(self) -> None:
        """Retry the most urgent pods that there is room for.

        Of those that ask for the same room one is examined. If more kinds wait than are examined at a time, the next
        look goes on with the others, so that urgent ones without room keep none from it. Nor do many of one kind that
        only kube-scheduler knows no node for: each kind has its share of the retries.
        """
        kinds = self._list_kinds()
        left = [kind for kind in kinds if kind not in self._examined]
        budget, turns = MAX_RETRIED, left[:MAX_EXAMINED]
        for place, kind in enumerate(turns):
            budget -= self._examine_safely(kinds[kind], ceil(budget / (len(turns) - place)))
        self._examined = self._examined.union(left[:MAX_EXAMINED]) if left[MAX_EXAMINED:] else frozenset()

    def _list_kinds(self) -> dict[PlacementRequest, list[tuple[str, RejectedPod]]]:
        """Return the pods by kind of request, of kinds and of pods the most urgent ones first."""
        kinds: dict[PlacementRequest, list[tuple[str, RejectedPod]]] = {}
        for one in sorted(self._waiting.items(), key=lambda one: one[1].due_s):
            if one[1].kind is not None:
                kinds.setdefault(one[1].kind, []).append(one)
        return kinds

    def _examine_safely(self, pods: Sequence[tuple[str, RejectedPod]], budget: int) -> int:
        """Examine pods that ask for the same room; if that fails, those of other kinds still have their turn."""
        key = pods[0][1].key
        try:
            retried = self._examine_kind(pods, budget)
        except Exception as error:
            self._guard.note("rejected pod", key, error)
            return 0
        self._guard.clear("rejected pod", key)
        return retried

    def _examine_kind(self, pods: Sequence[tuple[str, RejectedPod]], budget: int) -> int:
        """Retry pods that ask for the same room, `budget` at most, if there is any; return how many."""
        request = pods[0][1].request
        if request is None or not self._has_room(request):
            for _, waiting in pods:
                waiting.pause_s, waiting.next_s = FIRST_PAUSE_S, 0.0
            return 0
        now_s = self._now_s()
        due = [one for one in pods if one[1].next_s <= now_s][:budget]
        for uid, waiting in due:
            self._retry(uid, waiting)
        return len(due)

    def _retry(self, uid: str, waiting: RejectedPod) -> None:
        waiting.next_s = self._now_s() + waiting.pause_s
        waiting.pause_s = min(2.0 * waiting.pause_s, MAX_PAUSE_S)
        send = partial(self._send, uid, waiting.key)
        self._writes.put(Write("retry", waiting.key, send, is_repeated=False))

    async def _send(self, uid: str, key: str) -> None:
        namespace, _, name = key.partition("/")
        label = {names.RETRY_LABEL: f"{self._unix_now():.3f}"}
        try:
            # Through the status, since the operator has no right to change anything else of a pod.
            await self._client.patch(
                f"{names.pods_path(namespace)}/{name}/status", {"metadata": {"uid": uid, "labels": label}}
            )
        except ApiError as error:
            if error.is_unreachable:
                raise
            if error.status in (404, 409):
                self.forget(uid)  # gone, or another pod by now
            else:
                log.warning("kube-scheduler cannot be made to retry pod %s: %s", key, error)


def _find_kind(request: PlacementRequest) -> PlacementRequest:
    """Return a request without what the room for it does not depend on: how long it takes, and until when."""
    return replace(request, task_id="", prompt_tokens=0, output_tokens=None, due_s=0.0, deadline_s=0.0)
