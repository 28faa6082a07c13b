"""An API server in memory, with the methods of perllm.cluster.client.Client."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from perllm.cluster.client import ApiError, PatchKind

Object = dict[str, Any]

DENIED_PATCH = "the server rejected our request due to an error in our request"


class FakeApiServer:
    """Collections of objects by path.

    Attributes:
        calls: (method, path, body) of every request, in order.
        queries: (method, parameters) of every creation, in order.
        failures: raised by the next requests, one each.
        watch_failures: the same for watches.
        closed: paths for which rights are missing.
        page_size: objects per page of a list.
        slow_s: seconds that every answer takes.
        asked: set once there was a request.
        drops: fields of statuses that it does not know.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.failures: list[ApiError] = []
        self.watch_failures: list[ApiError] = []
        self.closed: set[str] = set()
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.page_size = 1000
        self.slow_s = 0.0
        self.asked = asyncio.Event()
        self.drops: set[str] = set()
        self.oldest_version = 0
        self._version = 0
        self._objects: dict[str, Object] = {}
        self._history: list[tuple[int, str, Object]] = []
        self._watches: list[asyncio.Queue[Object | ApiError | None]] = []
        self._failures: dict[str, list[Exception]] = {}

    # What a test does to the cluster.

    def fail(self, method: str, *errors: Exception) -> None:
        """Raise these errors in the next requests of one method."""
        self._failures.setdefault(method, []).extend(errors)

    def recover(self, method: str) -> None:
        """Let the requests of a method succeed again."""
        self._failures.pop(method, None)

    def store(self, path: str, **fields: Any) -> Object:
        """Create or change the object at `path`, as another client of the API server would."""
        known = path in self._objects
        name = path.rpartition("/")[2]
        old = self._objects.get(path, {"metadata": {"name": name, "uid": f"uid-{name}"}})
        item = _merge(old, copy.deepcopy(fields))
        self._objects[path] = item
        self._notify("MODIFIED" if known else "ADDED", item)
        return item

    def remove(self, path: str) -> None:
        self._notify("DELETED", self._objects.pop(path))

    def read(self, path: str) -> Object | None:
        return copy.deepcopy(self._objects.get(path))

    def send(self, event: Object) -> None:
        """Send an event of one's own to all watches."""
        for queue in self._watches:
            queue.put_nowait(event)

    def end_watches(self, error: ApiError | None = None) -> None:
        for queue in self._watches:
            queue.put_nowait(error)

    def forget_history(self) -> None:
        """From now on a watch from an earlier version is answered with 410 Gone."""
        self.oldest_version = self._version

    def calls_of(self, method: str) -> list[tuple[str, Any]]:
        return [(path, body) for one, path, body in self.calls if one == method]

    def queries_of(self, method: str) -> list[dict[str, str]]:
        return [query for one, query in self.queries if one == method and query]

    # The client's methods.

    async def get(self, path: str, **query: str) -> Object:
        await self._enter("GET", path, query)
        if path in self._objects:
            return copy.deepcopy(self._objects[path])
        items = [item for at, item in self._objects.items() if at.rpartition("/")[0] == path]
        items = [item for item in items if _is_selected(item, query.get("labelSelector", ""))]
        field, _, name = query.get("fieldSelector", "").partition("=")
        items = [item for item in items if field != "metadata.name" or item["metadata"]["name"] == name]
        start = int(query.get("continue") or 0)
        page = copy.deepcopy(items[start : start + self.page_size])
        token = str(start + self.page_size) if start + self.page_size < len(items) else ""
        return {"items": page, "metadata": {"resourceVersion": str(self._version), "continue": token}}

    async def list_metadata(self, path: str, **query: str) -> Object:
        page = await self.get(path, **query)
        return {**page, "items": [{"metadata": item["metadata"]} for item in page["items"]] or None}

    async def post(self, path: str, body: Any, **query: str) -> Object:
        self.queries.append(("POST", query))
        await self._enter("POST", path, body)
        at = f"{path}/{body['metadata']['name']}"
        if at in self._objects:
            raise ApiError(409, "AlreadyExists", f"{at} already exists")
        return self.store(at, **body)

    async def patch(self, path: str, body: Any, *, kind: PatchKind = PatchKind.MERGE, **_: str) -> Object:
        await self._enter("PATCH", path, body)
        at = path.removesuffix("/status")
        if at not in self._objects:
            raise ApiError(404, "NotFound", f"{at} not found")
        metadata = self._objects[at]["metadata"]
        if kind is PatchKind.JSON:
            self._objects[at], body = _apply(self._objects[at], body), {}
            for field in self.drops:
                self._objects[at]["status"].pop(field, None)
        if kind is PatchKind.STRATEGIC:
            dropped = body["metadata"]["$deleteFromPrimitiveList/finalizers"]
            body = {"metadata": {"finalizers": [one for one in metadata.get("finalizers", ()) if one not in dropped]}}
        return self.store(at, **body)

    async def delete(self, path: str, body: Any = None) -> Object:
        await self._enter("DELETE", path, body)
        if path not in self._objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        self.remove(path)
        return {}

    async def watch(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        metadata_only: bool = False,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Object]:
        await asyncio.sleep(0)
        self.calls.append(("WATCH", path, dict(query)))
        failure = self.watch_failures.pop(0) if self.watch_failures else None
        if failure is not None:
            raise failure
        version = int(query["resourceVersion"])
        if version < self.oldest_version:
            raise ApiError(410, "Expired", "too old resource version")
        on_open()
        queue: asyncio.Queue[Object | ApiError | None] = asyncio.Queue()
        for changed, kind, item in self._history:
            if changed > version:
                queue.put_nowait({"type": kind, "object": item})
        self._watches.append(queue)
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, ApiError):
                    raise event
                yield copy.deepcopy(event)
        finally:
            self._watches.remove(queue)

    async def _enter(self, method: str, path: str, body: Any) -> None:
        self.calls.append((method, path, copy.deepcopy(body)))
        self.asked.set()
        await asyncio.sleep(self.slow_s)
        if path in self.closed:
            raise ApiError(403, "Forbidden", f"{path} is forbidden")
        refusals = self._failures.get(method)
        failure = refusals.pop(0) if refusals else self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    def _notify(self, kind: str, item: Object) -> None:
        self._version += 1
        item["metadata"] = {**item["metadata"], "resourceVersion": str(self._version)}
        seen = copy.deepcopy(item)
        self._history.append((self._version, kind, seen))
        self.send({"type": kind, "object": seen})


class FakeClient(FakeApiServer):
    """Takes the place of the class Client in a command: whoever it is opened for gets this API server."""

    def __call__(self, credentials: object) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def _is_selected(item: Object, selector: str) -> bool:
    """Judge the selectors "label=value", "label" and "!label"."""
    labels = item["metadata"].get("labels") or {}
    name, equals, value = selector.removeprefix("!").partition("=")
    holds = not name or (labels.get(name) == value if equals else name in labels)
    return holds != selector.startswith("!")


def _apply(item: Object, patch: list[dict[str, Any]]) -> Object:
    """Apply the operations test, add and replace of a JSON patch (RFC 6902), as far as they are about objects."""
    patched = copy.deepcopy(item)
    for change in patch:
        *parents, name = change["path"].removeprefix("/").split("/")
        place = patched
        for parent in parents:
            place = place.get(parent)
            if place is None:
                raise ApiError(422, "Invalid", DENIED_PATCH)
        if change["op"] != "test":
            place[name] = copy.deepcopy(change["value"])
        elif place.get(name) != change["value"]:
            raise ApiError(422, "Invalid", DENIED_PATCH)
    return patched


def _merge(old: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
