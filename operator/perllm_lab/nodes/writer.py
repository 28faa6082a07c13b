"""Writes to the API server, concurrent with the simulation: in order per object, the newest state only."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from perllm.cluster.client import ApiError, Client, PatchKind

log = logging.getLogger(__name__)

GONE = (404, 409, 410)
FINAL_PHASES = ("Succeeded", "Failed")
MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class StatusPatch:
    """A strategic merge patch of an object's status."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ForcedDeletion:
    """The removal of a pod whose containers have ended, before the end of its grace period."""

    path: str
    uid: str


Write = StatusPatch | ForcedDeletion
Slot = tuple[str, type[Write]]


class Writer:
    """Queues writes without waiting; workers carry them out.

    All writes of a key go through the same worker, so they keep their order, and a newer status replaces an older one
    that has not been sent: only the last state counts. It is sent before the deletion, as kubelet does. Connection
    errors are retried until they pass; an object that was deleted or replaced in the meantime needs no write.
    """

    def __init__(self, client: Client, *, workers: int = 16) -> None:
        self._client = client
        self._pending: list[dict[Slot, Write]] = [{} for _ in range(workers)]
        self._wake = [asyncio.Event() for _ in range(workers)]
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, key: str, write: Write) -> None:
        """Queue a write for the object known as `key`."""
        worker = crc32(key.encode()) % len(self._pending)
        self._pending[worker][key, type(write)] = write
        self._wake[worker].set()
        self._idle.clear()

    @property
    def backlog(self) -> int:
        """The number of writes that have not reached the API server."""
        return self._busy + sum(len(pending) for pending in self._pending)

    async def drain(self) -> None:
        """Wait until everything has been written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for worker in range(len(self._pending)):
                group.create_task(self._work(worker), name=f"writer-{worker}")

    async def _work(self, worker: int) -> None:
        pending, wake = self._pending[worker], self._wake[worker]
        while True:
            await wake.wait()
            wake.clear()
            while pending:
                slot = next(iter(pending))
                self._busy += 1
                try:
                    await self._carry_out(pending.pop(slot), slot, pending)
                finally:
                    self._busy -= 1
            if not self.backlog:
                self._idle.set()

    async def _carry_out(self, write: Write, slot: Slot, pending: dict[Slot, Write]) -> None:
        delay_s = 0.1
        while slot not in pending:
            try:
                await self._send(write)
                return
            except ApiError as error:
                if error.status in GONE:
                    return
                if not error.is_transient:
                    log.error("writing %s failed, giving up: %s", write.path, error)
                    return
                log.warning("writing %s failed, retrying in %.1f s: %s", write.path, delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_BACKOFF_S)

    async def _send(self, write: Write) -> None:
        if isinstance(write, StatusPatch):
            pod = await self._client.patch(f"{write.path}/status", write.body, kind=PatchKind.STRATEGIC)
            if not _is_over(pod):
                return
            # Its deletion may have been asked for while the node was cut off; no watch of running pods shows it now.
            write = ForcedDeletion(write.path, pod["metadata"]["uid"])
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self._client.delete(write.path, {**options, "preconditions": {"uid": write.uid}})


def _is_over(pod: dict[str, Any]) -> bool:
    """Whether a pod is being deleted and none of its containers runs."""
    has_ended = pod["status"].get("phase") in FINAL_PHASES
    return has_ended and "deletionTimestamp" in pod["metadata"]
