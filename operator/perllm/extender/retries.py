"""Has kube-scheduler retry the pods that the extender found no node for.

kube-scheduler retries such a pod only when an object of the cluster changes. The end of a request to a model server, a
circuit that closes and a metric are no such changes, and at the end of a pod it may ask before the operator has seen
that end. So each rejected pod is examined again while it waits, and once there is room for it a label of it is changed,
which makes kube-scheduler retry this pod and no other. A pod that still gets no node, because of a rule that only
kube-scheduler knows, is retried after growing pauses.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.writes import Write, WriteQueue
from perllm.placement.request import PlacementRequest

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often rejected pods are examined; kube-scheduler's own pause after a failure is 1 to 2 s."""

MAX_RETRIED = 8
"""Pods that are retried at a time."""

MAX_EXAMINED = 8
"""Kinds of requests that are examined at a time, each at the cost of a decision."""

MAX_WAITING = 4096
"""Rejected pods that are remembered; beyond that, the oldest ones wait for a change of the cluster."""

FIRST_PAUSE_S, MAX_PAUSE_S = 2.0, 64.0


@dataclass(slots=True)
class RejectedPod:
    """A pod that waits for a node.

    Attributes:
        key: namespace/name.
        request: what it asks of placement; None if that is not known, because of its annotations.
        retried: how often it was retried since there is room for it.
        next_s: when it may be retried next.
    """

    key: str
    request: PlacementRequest | None
    retried: int = 0
    next_s: float = 0.0


class Retries:
    """The rejected pods, by uid.

    Args:
        client: the API server.
        writes: the queue of writes.
        has_room: whether a node would take a pod now.
        now_s: monotonic clock.
        unix_now: wall clock.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        *,
        has_room: Callable[[PlacementRequest], bool],
        now_s: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._client = client
        self._writes = writes
        self._has_room = has_room
        self._now_s = now_s
        self._unix_now = unix_now
        self._waiting: dict[str, RejectedPod] = {}
        self._examined: set[PlacementRequest] = set()

    def __contains__(self, uid: object) -> bool:
        return uid in self._waiting

    def note_rejected(self, uid: str, key: str, request: PlacementRequest | None) -> None:
        """Note that a pod got no node."""
        known = self._waiting.get(uid)
        if known is not None:
            known.request = request
            return
        self._waiting[uid] = RejectedPod(key, request)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

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
        look goes on with the others, so that urgent ones without room keep none from it.
        """
        now_s, retried, has_room, is_whole = self._now_s(), 0, dict[PlacementRequest, bool](), True
        for uid, waiting, request in self._list_by_urgency():
            kind = _find_kind(request)
            if kind in self._examined:
                continue
            if kind not in has_room:
                if len(has_room) == MAX_EXAMINED:
                    is_whole = False
                    continue
                has_room[kind] = self._has_room(request)
            if not has_room[kind]:
                waiting.retried, waiting.next_s = 0, 0.0
            elif waiting.next_s <= now_s and retried < MAX_RETRIED:
                self._retry(uid, waiting)
                retried += 1
        self._examined = set() if is_whole else self._examined | has_room.keys()

    def _list_by_urgency(self) -> list[tuple[str, RejectedPod, PlacementRequest]]:
        known = [(uid, one, one.request) for uid, one in self._waiting.items() if one.request is not None]
        return sorted(known, key=lambda one: one[2].due_s)

    def _retry(self, uid: str, waiting: RejectedPod) -> None:
        waiting.next_s = self._now_s() + min(FIRST_PAUSE_S * 2**waiting.retried, MAX_PAUSE_S)
        waiting.retried += 1
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
