"""A local copy of a collection on the API server, kept current by listing and then watching it.

Of every object only that is kept which its users need, and its identity and version. Deletions that happen while the
watch is down are found by comparing the next list with the copy, so the copy never drifts. Callbacks run in the event
loop, in slices, and must not block.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, ApiUnreachableError, Client, Object
from perllm.cluster.outages import Outages
from perllm.guard import Guard, describe
from perllm.slices import Slices
from perllm.text import clean_line

T = TypeVar("T")

OnChange = Callable[[T | None, T | None], None]
"""Called with (old, new): (None, new) for an addition, (old, None) for a deletion."""

PAGE_SIZE = "500"
RETRY = Backoff(first_s=0.2, limit_s=15.0)
RECONNECT_DELAY_S = 0.1
OVERLOADED = 429
"""Status of an answer by which the API server asks for fewer requests."""

LASTING_S = 15.0
"""A watch that has lasted this long resets the count of failures."""

SETTLED_S = 2.0
"""A watch that has lasted this long counts as working again."""


class WatchError(ApiError):
    """The API server ended a watch with an error event, or sent something that is not an event."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, "WatchError", message)


def object_key(item: Object) -> str:
    """Return "namespace/name", or "name" for cluster-scoped objects."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def keep_all(item: Object) -> Object:
    """Return the whole object, for collections that stay small."""
    return item


@dataclass(frozen=True, slots=True)
class _Copy(Generic[T]):
    """What is kept of an object."""

    uid: str | None
    version: str | None
    value: T


class Informer(Generic[T]):
    """Keeps a copy of the collection at `path`.

    Args:
        client: the API server.
        path: API path of the collection.
        read: returns what to keep of an object; None if nothing is needed of it, which counts as its absence.
        on_change: called with every change of what is kept, inside the guard.
        kind: kind of the objects, such as "pod".
        query: selectors.
        metadata_only: whether only the metadata of objects are read.
        guard: contains failures about single objects; by default one that counts nothing.
        outages: records watches that end in an error; by default an instance of its own.
        rng: jitter of pauses.

    Attributes:
        path: API path of the collection.
        topic: topic under which its outages are recorded.
        synced: set once the first list has been processed.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        read: Callable[[Object], T | None],
        on_change: OnChange[T],
        *,
        kind: str = "object",
        query: Mapping[str, str] | None = None,
        metadata_only: bool = False,
        guard: Guard | None = None,
        outages: Outages | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self.path = path
        self._read = read
        self._on_change = on_change
        self._kind = kind
        self._query = dict(query or {})
        self._metadata_only = metadata_only
        self._rng = rng or random.Random()
        self._guard = guard or Guard(lambda _: None, self._rng)
        self._outages = outages or Outages(time.monotonic)
        self.topic = f"watch of {path}"
        self._copies: dict[str, _Copy[T]] = {}
        self._version: str | None = None

    @property
    def objects(self) -> dict[str, T]:
        """What is kept of each object, by `object_key`."""
        return {key: copy.value for key, copy in self._copies.items()}

    async def run(self) -> None:
        """Follow the collection until cancelled; failures are retried with a growing, jittered delay."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            begun_s = loop.time()
            try:
                if self._version is None:
                    self._version = await self._relist()
                while self._version is not None:
                    await self._follow(self._version)
                    await asyncio.sleep(RECONNECT_DELAY_S)
            except ApiError as error:
                self._outages.failed(self.topic, error, is_unanswered=error.is_unanswered)
            failures = 1 if loop.time() - begun_s > LASTING_S else failures + 1
            await asyncio.sleep(RETRY.pause_s(failures, self._rng))

    async def _relist(self) -> str:
        """Bring the copy in line with a list; return the version of the collection that it shows."""
        listed: dict[str, _Copy[T]] = {}
        slices = Slices()
        token, version = await self._read_page("", listed, slices)
        while token:
            token, version = await self._read_page(token, listed, slices)
        for key in self._copies.keys() - listed.keys():
            self._put(key, None)
            await slices.pause()
        for key, copy in listed.items():
            self._put(key, copy)
            await slices.pause()
        self.synced.set()
        return version

    async def _read_page(self, token: str, listed: dict[str, _Copy[T]], slices: Slices) -> tuple[str, str]:
        """Add what is kept of the objects on a page to `listed`; return the token of the next page, and the version."""
        query = {"limit": PAGE_SIZE, "continue": token, **self._query}
        read = self._client.list_metadata if self._metadata_only else self._client.get
        page = await read(self.path, **query)
        try:
            token, version = page["metadata"].get("continue", ""), str(page["metadata"]["resourceVersion"])
            # A list of metadata that is empty has null for its items.
            items = [(object_key(item), item) for item in page["items"] or ()]
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiUnreachableError(f"the list of {self.path} is malformed: {describe(error)}") from error
        for key, item in items:
            copy = self._project(key, item)
            if copy is not None:
                listed[key] = copy
            await slices.pause()
        return token, version

    async def _follow(self, version: str) -> None:
        """Apply the events of one watch until it ends; if the API server has forgotten the version, a list is needed.

        Raises:
            ApiError: the watch failed; a list is needed unless it was cut off, or the API server is overloaded.
        """
        loop, slices = asyncio.get_running_loop(), Slices()
        query = {"resourceVersion": version, **self._query}
        with ExitStack() as timers:

            def note_open() -> None:
                timers.callback(loop.call_later(SETTLED_S, self._outages.worked, self.topic).cancel)

            try:
                events = self._client.watch(self.path, query, metadata_only=self._metadata_only, on_open=note_open)
                async for event in events:
                    self._version = self._apply(event)
                    await slices.pause()
            except ApiError as error:
                # An overloaded API server can take a list least. After other errors one brings what is new.
                if not error.is_unanswered and error.status != OVERLOADED:
                    self._version = None
                if error.status != 410:
                    raise

    def _apply(self, event: Object) -> str:
        """Apply an event; return the version of the collection after it.

        Raises:
            WatchError: the event reports an error, or is malformed.
        """
        try:
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise WatchError(int(item.get("code") or 0), clean_line(item.get("message") or item))
            version, key = str(item["metadata"]["resourceVersion"]), "" if kind == "BOOKMARK" else object_key(item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WatchError(0, f"not an event: {clean_line(event)}") from error
        if kind == "BOOKMARK":
            return version
        copy = self._project(key, item)
        if kind == "DELETED":
            known = self._copies.pop(key, None)
            last = copy or known
            self._report(key, None if last is None else last.value, None)
        else:
            self._put(key, copy)
        return version

    def _project(self, key: str, item: Object) -> _Copy[T] | None:
        """Return what to keep of an object, None for nothing; an object that cannot be read is kept as it was known."""
        uid, version = item["metadata"].get("uid"), item["metadata"].get("resourceVersion")
        known = self._copies.get(key)
        if known is not None and (known.uid, known.version) == (uid, version):
            return known
        try:
            value = self._read(item)
        except Exception as error:
            self._guard.note(self._kind, key, error)
            return known
        return None if value is None else _Copy(uid, version, value)

    def _put(self, key: str, copy: _Copy[T] | None) -> None:
        """Replace what is kept of an object; another object of the same name is a deletion and an addition."""
        known = self._copies.get(key)
        if known is not None and (copy is None or copy.uid != known.uid):
            del self._copies[key]
            self._report(key, known.value, None)
            known = None
        if copy is not None:
            self._copies[key] = copy
            self._report(key, None if known is None else known.value, copy.value)

    def _report(self, key: str, old: T | None, new: T | None) -> None:
        if old != new:
            self._guard.run(self._kind, key, partial(self._on_change, old, new), again=new is not None)
        if new is None:
            self._guard.clear(self._kind, key)


async def wait_for_first_lists(informers: Sequence[Informer[Any]], patience_s: float) -> list[str]:
    """Wait for the first list of each informer; return the paths of those that are still missing.

    After `patience_s` one list is enough: a collection that cannot be read, for example because a right is missing in
    its namespace, must not keep the others from being served.
    """
    waits = [asyncio.ensure_future(informer.synced.wait()) for informer in informers]
    try:
        _, late = await asyncio.wait(waits, timeout=patience_s)
        if late:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return [informer.path for informer in informers if not informer.synced.is_set()]
