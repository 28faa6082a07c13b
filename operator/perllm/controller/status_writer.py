"""Keeps the statuses of tasks on the API server up to date: writes only the newest status, and only if it changed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from perllm.api import names
from perllm.api.task_status import RunsAs, TaskStatus
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.shapes import as_object, as_text
from perllm.cluster.writes import Write, WriteQueue

log = logging.getLogger(__name__)

Fields = dict[str, Any]

KIND = "status"
ESSENTIALS = ("observedGeneration", "phase", "attempts")
"""What is written of a status that the schema does not admit as a whole; it always admits these fields."""

SCHEMA_ERRORS = (400, 413, 422)

RESTORE_PAUSE_S = 5.0
"""How long after a status was restored it is restored again, so that a client that insists costs little."""

TEST_FAILED = "the server rejected our request due to an error in our request"
"""The API server's words, and all it says, if a JSON patch cannot be applied: the task has another uid, or an agent has
reported its run. The watch brings what is there instead."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The status of a task as the API server has it.

    Attributes:
        fields: the status.
        version: the version of the task that has it, which grows with every change; 0 if it is not known.
    """

    fields: Fields
    version: int = 0


def read_stored(item: Object) -> Stored:
    """Return the status of a task as the API server has it."""
    version = as_text(as_object(item.get("metadata")).get("resourceVersion"))
    return Stored(as_object(item.get("status")), int(version) if version.isdecimal() else 0)


def build_patch(uid: str, fields: Fields, stored: Fields) -> list[Fields]:
    """Return the JSON patch (RFC 6902) that replaces a status, if the task has this uid.

    The API server ignores a uid in the other kinds of patches of a custom resource's status. What an agent has reported
    in the meantime is not replaced by a status that was made without it.

    Args:
        uid: uid of the task.
        fields: the new status.
        stored: the status that it replaces, as far as known.
    """
    tests: list[Fields] = [{"op": "test", "path": "/metadata/uid", "value": uid}]
    if stored.get("runsAs") == RunsAs.REQUEST and "run" not in stored:
        tests.append({"op": "test", "path": "/status/run", "value": None})
    return [*tests, {"op": "add", "path": "/status", "value": fields}]


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
        self._stored: dict[str, Stored] = {}
        self._sent: dict[str, Fields] = {}
        self._restored_s: dict[str, float] = {}
        self._wanted: dict[str, TaskStatus | Fields] = {}
        self._delays: dict[str, tuple[asyncio.TimerHandle, str]] = {}
        self._doubtful: set[str] = set()

    def seed(self, key: str, stored: Stored) -> None:
        """Record the status that was read from the API server, unless one is known."""
        self._stored.setdefault(key, stored)

    def put(self, key: str, uid: str, status: TaskStatus | Fields, *, delay_s: float = 0.0) -> None:
        """Queue a status to be written; returns at once. Most are replaced before, so it is made an object only then.

        Args:
            key: namespace/name of the task.
            uid: its identity, so that another task of this name is not changed.
            status: the status.
            delay_s: how long the write may wait for a newer status that replaces it, however long one before it may.
        """
        stored = self.stored(key).fields
        if key not in self._wanted and stored:
            status = _to_fields(status)
            if stored == status:
                return
        self._wanted[key] = status
        if not delay_s:
            self._queue(key, uid)
            return
        loop = asyncio.get_running_loop()
        if key not in self._delays or loop.time() + delay_s < self._delays[key][0].when():
            self._end_delay(key)
            self._delays[key] = loop.call_later(delay_s, self._queue, key, uid), uid

    @property
    def delayed(self) -> int:
        """How many statuses wait for newer ones that replace them."""
        return len(self._delays)

    def observe(self, key: str, stored: Stored) -> None:
        """Note what is stored, after an agent has added its report; the next status is made with it."""
        self._stored[key] = stored
        self._doubtful.discard(key)

    def is_known(self, key: str, present: Fields) -> bool:
        """Whether a status is the one that is stored, as far as known, or is being stored; any thread may ask."""
        stored = self._stored.get(key)
        return (stored is not None and stored.fields == present) or self._sent.get(key) == present

    def restore(self, key: str, uid: str, newest: TaskStatus | Fields, present: Stored) -> None:
        """Write the newest status of a task again if another client has changed what is stored to what is present.

        Also if it is on its way: it was made without that change, so the API server may deny it. What was present
        before the last write is not any more.
        """
        if self.is_known(key, present.fields) or present.version < self.stored(key).version:
            return
        self._stored[key] = present
        now_s = asyncio.get_running_loop().time()
        pause_s = self._restored_s.get(key, -inf) + RESTORE_PAUSE_S - now_s
        if pause_s <= 0.0:
            self._restored_s[key] = now_s
        self.put(key, uid, newest, delay_s=max(pause_s, 0.0))

    def stored(self, key: str) -> Stored:
        """Return what is stored, as far as known."""
        return self._stored.get(key, Stored({}))

    def is_stored(self, key: str) -> bool:
        """Whether the API server has the newest status; of a task that it has changed meanwhile, it is not known."""
        return key in self._stored and key not in self._wanted

    def hurry(self) -> None:
        """Write at once what was to wait for a newer status."""
        for key, (_, uid) in list(self._delays.items()):
            self._queue(key, uid)

    def forget(self, key: str) -> None:
        """Drop everything about an object that no longer exists."""
        for known in (self._stored, self._sent, self._restored_s):
            known.pop(key, None)
        self._wanted.pop(key, None)
        self._doubtful.discard(key)
        self._end_delay(key)
        self._writes.drop(KIND, key)

    def _queue(self, key: str, uid: str) -> None:
        self._end_delay(key)
        self._writes.put(Write(KIND, key, partial(self._send, key, uid)))

    def _end_delay(self, key: str) -> None:
        timer, _ = self._delays.pop(key, (None, ""))
        if timer is not None:
            timer.cancel()

    async def _send(self, key: str, uid: str) -> None:
        if key in self._doubtful and not await self._look(key, uid):
            self.forget(key)
        wanted = self._wanted.get(key)
        if wanted is not None:
            await self._store(key, uid, wanted)

    async def _store(self, key: str, uid: str, wanted: TaskStatus | Fields) -> None:
        stored, fields = self._stored.setdefault(key, Stored({})), _to_fields(wanted)
        try:
            written = stored if stored.fields == fields else await self._patch(key, uid, fields)
        except ApiError as error:
            if not _is_about_another(error):
                is_order = fields.get("runsAs") == RunsAs.REQUEST
                if is_order and _may_be_made(error) and self._stored.get(key) is stored:
                    self._doubtful.add(key)
                raise
            written = None
        if self._stored.get(key) is not stored:
            return  # forgotten in the meantime; another object may have its name by now
        if written is None:
            if self._wanted.get(key) is wanted:
                self.forget(key)
            return
        self._stored[key] = written
        if self._wanted.get(key) is wanted:
            del self._wanted[key]
        if self._sent.pop(key, None) is fields or written is stored:
            self._on_written(key, fields)

    async def _look(self, key: str, uid: str) -> bool:
        """Read what is stored after a write without an answer, which may have been an agent's order.

        Return whether the newest status may be written: not if the task is gone, or the agent has reported meanwhile,
        which the watch will show.
        """
        namespace, name = key.split("/")
        # A list, since the operator has no right to get tasks.
        listing = await self._client.get(names.tasks_path(namespace), fieldSelector=f"metadata.name={name}")
        item: Object = next((one for one in listing["items"] if one["metadata"]["name"] == name), {})
        if key not in self._doubtful:
            return True  # forgotten, or observed meanwhile
        present, wanted = read_stored(item), _to_fields(self._wanted.get(key, {}))
        run = as_object(present.fields.get("run"))
        self.observe(key, present)
        is_same = bool(item) and uid == item["metadata"]["uid"]
        return is_same and (not run or "run" in wanted or run.get("attempt") != wanted.get("attempts"))

    async def _patch(self, key: str, uid: str, fields: Fields) -> Stored:
        """Write a status, or the essentials of it if the schema does not admit the rest; return what is stored now."""
        try:
            return await self._replace(key, uid, fields)
        except ApiError as error:
            if error.status not in SCHEMA_ERRORS or _is_about_another(error):
                raise
            message = f"the API server denied PerLLM's full status: {error.message}"
            essentials = {name: fields[name] for name in ESSENTIALS if name in fields} | {"message": message}
            reduced = await self._replace(key, uid, {**self.stored(key).fields, **essentials})
            log.error("the status of %s was denied; only its phase and the reason are written: %s", key, error)
            return reduced

    async def _replace(self, key: str, uid: str, fields: Fields) -> Stored:
        path, patch = names.task_status_path(*key.split("/")), build_patch(uid, fields, self.stored(key).fields)
        self._sent[key] = fields
        answer = await self._client.patch(path, patch, kind=PatchKind.JSON, fieldManager=names.FIELD_MANAGER)
        return read_stored(answer)


def _to_fields(status: TaskStatus | Fields) -> Fields:
    return status.to_object() if isinstance(status, TaskStatus) else status


def _may_be_made(error: ApiError) -> bool:
    """Whether a change may have been made although it was not confirmed."""
    return error.status == 0 or error.status >= 500


def _is_about_another(error: ApiError) -> bool:
    """Whether the task is gone, or another one has its name by now."""
    return error.status == 404 or (error.status in SCHEMA_ERRORS and error.message == TEST_FAILED)
