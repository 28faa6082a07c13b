"""A local copy of a collection of the API server: list, then watch, for ever.

Deletions that happen while the watch is down are found by comparing the next list with the copy, so the copy never
drifts. Callbacks run in the event loop, must not block, and see every object as a plain dictionary.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from perllm.cluster.client import ApiError, Client, Object

log = logging.getLogger(__name__)

OnChange = Callable[[Object | None, Object | None], None]
"""Called with (old, new): (None, new) for an addition, (old, None) for a deletion."""

PAGE_SIZE = "1000"
MAX_BACKOFF_S = 15.0
RECONNECT_DELAY_S = 0.1


def object_key(item: Object) -> str:
    """Return "namespace/name", or "name" for objects of the cluster."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


class Informer:
    """Keeps `objects` equal to the collection at `path`.

    Attributes:
        objects: the copy, by `object_key`.
        synced: set once the first list has been delivered.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        on_change: OnChange,
        *,
        query: Mapping[str, str] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._path = path
        self._on_change = on_change
        self._query = dict(query or {})
        self._rng = rng or random.Random()

    async def run(self) -> None:
        """Follow the collection until cancelled; every failure is retried with a growing, jittered delay."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            begun_s = loop.time()
            try:
                await self._follow(await self._relist())
                failures = 0
            except ApiError as error:
                failures = 1 if loop.time() - begun_s > MAX_BACKOFF_S else failures + 1
                log.warning("watch of %s interrupted, will resume: %s", self._path, error)
            delay_s = min(MAX_BACKOFF_S, 0.2 * 2**failures) if failures else RECONNECT_DELAY_S
            await asyncio.sleep(delay_s * (0.5 + self._rng.random() / 2))

    async def _relist(self) -> str:
        seen: dict[str, Object] = {}
        token = ""
        while True:
            page = await self._client.get(self._path, limit=PAGE_SIZE, **{"continue": token}, **self._query)
            seen.update((object_key(item), item) for item in page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                break
        for key in self.objects.keys() - seen.keys():
            self._tell(self.objects.pop(key), None)
        for key, item in seen.items():
            self._store(key, item)
        self.synced.set()
        return str(page["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        """Apply watch events, reconnecting where the stream merely ended, until a new list is needed."""
        while True:
            try:
                async for event in self._client.watch(self._path, {"resourceVersion": version, **self._query}):
                    item = event["object"]
                    if event["type"] == "ERROR":
                        log.info("watch of %s starts over: %s", self._path, item.get("message"))
                        return
                    version = item["metadata"]["resourceVersion"]
                    self._apply(event["type"], item)
            except ApiError as error:
                if error.status == 410:
                    return
                raise
            await asyncio.sleep(RECONNECT_DELAY_S)

    def _apply(self, kind: str, item: Object) -> None:
        if kind == "BOOKMARK":
            return
        key = object_key(item)
        if kind == "DELETED":
            self.objects.pop(key, None)
            self._tell(item, None)
            return
        self._store(key, item)

    def _store(self, key: str, item: Object) -> None:
        old = self.objects.get(key)
        if old is not None and old["metadata"].get("uid") != item["metadata"].get("uid"):
            self._tell(self.objects.pop(key), None)
            old = None
        if old is not None and old["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
            return
        self.objects[key] = item
        self._tell(old, item)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        """Report a change; an object that the listener cannot cope with must not end the watch of all others."""
        try:
            self._on_change(old, new)
        except Exception:
            log.exception("%s cannot be handled and is passed over", object_key(new or old or {}))
