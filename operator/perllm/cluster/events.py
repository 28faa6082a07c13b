"""Kubernetes Events on tasks, posted beside the hot path. They inform; nothing depends on them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client
from perllm.cluster.times import format_time

log = logging.getLogger(__name__)

CAPACITY = 2000
MAX_NOTE = 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """The task that an event is about."""

    namespace: str
    name: str
    uid: str


class EventRecorder:
    """Posts events in order, a bounded number at a time; when the API server cannot follow, the newest are dropped."""

    def __init__(self, client: Client, *, instance: str, unix_now: Callable[[], float], workers: int = 2) -> None:
        self._client = client
        self._instance = instance
        self._unix_now = unix_now
        self._workers = workers
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(CAPACITY)
        self._count = 0

    def record(self, subject: Subject, reason: str, note: str, *, warning: bool = False) -> None:
        """Queue an event on a task; returns at once."""
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
            "note": note[:MAX_NOTE],
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.TASK_KIND,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event dropped, the API server is too slow for them: %s %s", subject.name, reason)

    async def run(self) -> None:
        """Post events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._post())

    async def _post(self) -> None:
        while True:
            event = await self._queue.get()
            path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
            try:
                await self._client.post(path, event)
            except ApiError as error:
                log.debug("event not posted: %s", error)
