"""Writes statuses behind the hot path: the newest one only, only what changed, again until it is stored."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from perllm.cluster.client import ApiError, Client

log = logging.getLogger(__name__)

MAX_BACKOFF_S = 10.0

Fields = dict[str, Any]


def merge_patch(old: Fields, new: Fields) -> Fields:
    """Return the JSON merge patch (RFC 7386) that turns `old` into `new`; empty when they are equal."""
    patch: Fields = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        patch[key] = merge_patch(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return patch


class StatusWriter:
    """Keeps the status of objects on the API server equal to what `put` was last given.

    Args:
        client: the API server.
        on_written: called with the key and the status once it is stored.
        on_gone: called with the key when the object no longer exists.
        workers: how many statuses are written at a time.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_written: Callable[[str, Fields], None],
        on_gone: Callable[[str], None],
        workers: int = 8,
    ) -> None:
        self._client = client
        self._on_written = on_written
        self._on_gone = on_gone
        self._workers = workers
        self._stored: dict[str, Fields] = {}
        self._wanted: dict[str, tuple[str, Fields]] = {}
        self._busy: set[str] = set()
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._idle = asyncio.Event()
        self._idle.set()

    def know(self, key: str, stored: Fields) -> None:
        """Note what the API server holds, as read from it."""
        self._stored.setdefault(key, stored)

    def put(self, key: str, path: str, fields: Fields) -> None:
        """Ask for a status; returns at once."""
        if key not in self._wanted and key not in self._busy and self._stored.get(key) == fields:
            return
        queued = key in self._wanted or key in self._busy
        self._wanted[key] = (path, fields)
        self._idle.clear()
        if not queued:
            self._queue.put_nowait(key)

    def forget(self, key: str) -> None:
        """Drop everything about an object that no longer exists."""
        self._stored.pop(key, None)
        self._wanted.pop(key, None)

    @property
    def pending(self) -> int:
        """Number of statuses that wait to be stored."""
        return len(self._wanted) + len(self._busy)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def drain(self) -> None:
        """Wait until nothing is left to write."""
        await self._idle.wait()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            if key in self._busy:
                continue  # queued twice: forgotten and wanted again; who is at it writes the newest
            self._busy.add(key)
            failures = 0
            while (wanted := self._wanted.pop(key, None)) is not None:
                failures = 0 if await self._write(key, *wanted) else failures + 1
                if failures:
                    await asyncio.sleep(min(MAX_BACKOFF_S, 0.1 * 2**failures))
            self._busy.discard(key)
            if not self.pending:
                self._idle.set()

    async def _write(self, key: str, path: str, fields: Fields) -> bool:
        """Store one status; False if it has to be tried again."""
        stored = self._stored.setdefault(key, {})
        patch = merge_patch(stored, fields)
        if patch:
            failure = None
            try:
                await self._client.patch(path, {"status": patch})
            except ApiError as error:
                failure = error
            if self._stored.get(key) is not stored:
                return True  # forgotten meanwhile; another object may have its name by now
            if failure is not None:
                return self._handle(key, path, fields, failure)
        self._stored[key] = fields
        self._on_written(key, fields)
        return True

    def _handle(self, key: str, path: str, fields: Fields, error: ApiError) -> bool:
        if error.status == 404:
            self.forget(key)
            self._on_gone(key)
            return True
        if error.is_transient or error.status == 409:
            self._wanted.setdefault(key, (path, fields))
            return False
        log.error("the status of %s was refused and is given up: %s", key, error)
        return True
