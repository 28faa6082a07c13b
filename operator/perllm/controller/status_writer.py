"""Keeps the statuses of tasks on the API server up to date: writes only the newest status, and only what changed."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from perllm.cluster.client import ApiError, Client
from perllm.cluster.writes import Write, WriteQueue

log = logging.getLogger(__name__)

Fields = dict[str, Any]

KIND = "status"
ESSENTIALS = ("observedGeneration", "phase", "attempts")
"""What is written of a status that the schema does not admit as a whole; it always admits these fields."""

SCHEMA_ERRORS = (400, 413, 422)


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
    """Statuses on their way to the API server.

    Args:
        client: the API server.
        writes: the queue that carries them there.
        on_written: called with the key and the status once it is stored.
    """

    def __init__(
        self,
        client: Client,
        writes: WriteQueue,
        *,
        on_written: Callable[[str, Fields], None],
    ) -> None:
        self._client = client
        self._writes = writes
        self._on_written = on_written
        self._stored: dict[str, Fields] = {}
        self._wanted: dict[str, Fields] = {}

    def seed(self, key: str, stored: Fields) -> None:
        """Record the status that was read from the API server, unless one is known."""
        self._stored.setdefault(key, stored)

    def put(self, key: str, path: str, fields: Fields) -> None:
        """Have a status written; returns at once."""
        if key not in self._wanted and self._stored.get(key) == fields:
            return
        self._wanted[key] = fields
        self._writes.put(Write(KIND, key, partial(self._send, key, path)))

    def forget(self, key: str) -> None:
        """Drop everything about an object that no longer exists."""
        self._stored.pop(key, None)
        self._wanted.pop(key, None)
        self._writes.drop(KIND, key)

    async def _send(self, key: str, path: str) -> None:
        fields = self._wanted.get(key)
        if fields is None:
            return  # forgotten
        stored = self._stored.setdefault(key, {})
        patch = merge_patch(stored, fields)
        try:
            written = await self._patch(key, path, patch, fields) if patch else fields
        except ApiError as error:
            if error.status != 404:
                raise
            written = None
        if self._stored.get(key) is not stored:
            return  # forgotten in the meantime; another object may have its name by now
        if written is None:
            self.forget(key)
            return
        self._stored[key] = written
        if self._wanted.get(key) is fields:
            del self._wanted[key]
        if written is fields:
            self._on_written(key, fields)

    async def _patch(self, key: str, path: str, patch: Fields, fields: Fields) -> Fields:
        """Return what is stored now: all of it, or the essentials if the schema does not admit the rest."""
        try:
            await self._client.patch(path, {"status": patch})
        except ApiError as error:
            if error.status not in SCHEMA_ERRORS:
                raise
            message = f"the API server denied PerLLM's full status: {error.message}"
            essentials = {name: fields[name] for name in ESSENTIALS if name in fields} | {"message": message}
            await self._client.patch(path, {"status": essentials})
            log.error("the status of %s was denied; only its phase and the reason are written: %s", key, error)
            return {**self._stored.get(key, {}), **essentials}
        return fields
