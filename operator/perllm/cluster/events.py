"""Kubernetes Events on tasks and pods, posted in the background. They inform people; nothing depends on them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.times import format_time
from perllm.cluster.writes import Write, WriteQueue
from perllm.text import cut_bytes

log = logging.getLogger(__name__)

KIND = "event"
CAPACITY = 2000
"""Maximum number of events that wait to be posted; further ones are dropped."""

MAX_NOTE = 1024
"""Bytes; the API server denies an event with more."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an event is about, by default a task."""

    namespace: str
    name: str
    uid: str
    api_version: str = names.API_VERSION
    kind: str = names.TASK_KIND


class EventRecorder:
    """Posts events; if the API server cannot keep up, the newest ones are dropped.

    Args:
        client: the API server.
        writes: the queue through which events are posted.
        instance: name of the reporting process.
        unix_now: Unix time in seconds.
    """

    def __init__(self, client: Client, writes: WriteQueue, *, instance: str, unix_now: Callable[[], float]) -> None:
        self._client = client
        self._writes = writes
        self._instance = instance
        self._unix_now = unix_now
        self._count = 0
        self._waiting: set[str] = set()
        self._is_dropping = False

    def record(self, subject: Subject, reason: str, note: str, *, warning: bool = False) -> None:
        """Queue an event on an object; returns at once."""
        self._count += 1
        now_s = self._unix_now()
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{subject.name[:200].rstrip('-.')}.{int(now_s * 1e6):x}{self._count:x}",
                "namespace": subject.namespace,
            },
            "eventTime": format_time(now_s),
            "reportingController": "perllm.io/operator",
            "reportingInstance": self._instance,
            "action": reason,
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": cut_bytes(note, MAX_NOTE),
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
        }
        self._post(event)

    def _post(self, event: dict[str, Any]) -> None:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        is_full = len(self._waiting) >= CAPACITY
        if is_full and not self._is_dropping:
            log.warning("dropping events, because %d are waiting to be written: %s/%s", CAPACITY, namespace, name)
        self._is_dropping = is_full
        if not is_full:
            self._waiting.add(name)
            send = partial(self._send, f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
            self._writes.put(Write(KIND, f"{namespace}/{name}", send))

    async def _send(self, path: str, event: dict[str, Any]) -> None:
        try:
            await self._client.post(path, event)
        except ApiError as error:
            # The server would deny the event again, and events are not worth retrying.
            if error.is_unreachable:
                raise
            log.debug("event not posted: %s", error)
        self._waiting.discard(event["metadata"]["name"])
