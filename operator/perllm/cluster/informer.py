"""A local copy of a collection on the API server, kept current by listing and then watching it.

Deletions that happen while the watch is down are found by comparing the next list with the copy, so the copy never
drifts. Callbacks run in the event loop, must not block, and get every object as a plain dictionary.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, ApiUnreachableError, Client, Object
from perllm.cluster.outages import Outages
from perllm.guard import Guard, describe
from perllm.text import clean_line

OnChange = Callable[[Object | None, Object | None], None]
"""Called with (old, new): (None, new) for an addition, (old, None) for a deletion."""

PAGE_SIZE = "1000"
RETRY = Backoff(first_s=0.2, limit_s=15.0)
RECONNECT_DELAY_S = 0.1
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


class Informer:
    """Keeps `objects` equal to the collection at `path`.

    Args:
        client: the API server.
        path: API path of the collection.
        on_change: called with every change, inside the guard.
        kind: kind of the objects, such as "pod".
        query: selectors.
        guard: contains failures about single objects; by default one that counts nothing.
        outages: records watches that end in an error; by default an instance of its own.
        rng: jitter of pauses.

    Attributes:
        path: API path of the collection.
        objects: the copy, by `object_key`.
        synced: set once the first list has been processed.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        on_change: OnChange,
        *,
        kind: str = "object",
        query: Mapping[str, str] | None = None,
        guard: Guard | None = None,
        outages: Outages | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self._client = client
        self.path = path
        self._on_change = on_change
        self._kind = kind
        self._query = dict(query or {})
        self._rng = rng or random.Random()
        self._guard = guard or Guard(lambda _: None, self._rng)
        self._outages = outages or Outages(time.monotonic)
        self._topic = f"watch of {path}"

    async def run(self) -> None:
        """Follow the collection until cancelled; failures are retried with a growing, jittered delay."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            begun_s = loop.time()
            try:
                version = await self._relist()
                settled = loop.call_later(SETTLED_S, self._outages.worked, self._topic)
                try:
                    await self._follow(version)
                finally:
                    settled.cancel()
            except ApiError as error:
                self._outages.failed(self._topic, error, is_unanswered=error.is_unanswered)
            failures = 1 if loop.time() - begun_s > LASTING_S else failures + 1
            await asyncio.sleep(RETRY.pause_s(failures, self._rng))

    async def _relist(self) -> str:
        seen: dict[str, Object] = {}
        token = ""
        while True:
            page = await self._client.get(self.path, limit=PAGE_SIZE, **{"continue": token}, **self._query)
            try:
                seen.update((object_key(item), item) for item in page["items"])
                token, version = page["metadata"].get("continue", ""), str(page["metadata"]["resourceVersion"])
            except (KeyError, TypeError, AttributeError) as error:
                message = f"the list of {self.path} is malformed: {describe(error)}"
                raise ApiUnreachableError(message) from error
            if not token:
                break
        for key in self.objects.keys() - seen.keys():
            self._report(key, self.objects.pop(key), None)
        for key, item in seen.items():
            self._store(key, item)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> None:
        """Apply watch events, and reconnect when the stream merely ends, until a new list is needed."""
        while True:
            try:
                async for event in self._client.watch(self.path, {"resourceVersion": version, **self._query}):
                    version = self._apply(event)
            except ApiError as error:
                if error.status == 410:
                    return
                raise
            await asyncio.sleep(RECONNECT_DELAY_S)

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
        if kind == "DELETED":
            self.objects.pop(key, None)
            self._report(key, item, None)
        elif kind != "BOOKMARK":
            self._store(key, item)
        return version

    def _store(self, key: str, item: Object) -> None:
        old = self.objects.get(key)
        if old is not None and old["metadata"].get("uid") != item["metadata"].get("uid"):
            self._report(key, self.objects.pop(key), None)
            old = None
        if old is not None and old["metadata"].get("resourceVersion") == item["metadata"].get("resourceVersion"):
            return
        self.objects[key] = item
        self._report(key, old, item)

    def _report(self, key: str, old: Object | None, new: Object | None) -> None:
        self._guard.run(self._kind, key, partial(self._on_change, old, new), again=new is not None)


async def wait_for_first_lists(informers: Sequence[Informer], patience_s: float) -> list[str]:
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
