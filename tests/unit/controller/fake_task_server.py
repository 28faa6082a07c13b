"""The API server's HTTP as Kopf sees it, for answers that a real one gives only when it is broken."""

import asyncio
import json
from typing import Any

from aiohttp import web

from perllm.api import names
from unit.controller.samples import task_object

GROUP_PATH = f"/apis/{names.API_VERSION}"


class FakeTaskServer:
    """Lists and watches tasks; a test says what the watch sends.

    Attributes:
        tasks: the tasks that exist, by name.
        lists: how often they were listed.
        watched_from: the version that each watch began at.
        failures: how many more requests for the resources of the group fail.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.lists = 0
        self.watched_from: list[str] = []
        self.failures = 0
        self._version = 1
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watches: list[asyncio.Queue[bytes | None]] = []

    def create(self, name: str, **spec: Any) -> None:
        """Create a task, and report it to the watch."""
        self._lines.put_nowait(self._event("ADDED", self.store(name, **spec)))

    def store(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a task that is not reported to the watch."""
        self._version += 1
        item = task_object(name, status={"phase": "Pending"}, **spec)
        item |= {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND}
        item["metadata"]["resourceVersion"] = str(self._version)
        self.tasks[name] = item
        return item

    def change(self, name: str, **metadata: Any) -> None:
        """Change the metadata of a task, and report it to the watch."""
        self._version += 1
        self.tasks[name]["metadata"] |= {"resourceVersion": str(self._version), **metadata}
        self._lines.put_nowait(self._event("MODIFIED", self.tasks[name]))

    def send(self, line: bytes) -> None:
        """Send any line to the watch."""
        self._lines.put_nowait(line)

    def end_watch(self) -> None:
        self._lines.put_nowait(None)

    def build_app(self) -> web.Application:
        app = web.Application()
        app.on_shutdown.append(self._end_watches)
        app.router.add_get("/apis", self._groups)
        app.router.add_get("/api", self._core)
        app.router.add_get("/api/v1", self._core)
        app.router.add_get("/apis/apiextensions.k8s.io/v1", self._extensions)
        app.router.add_get(GROUP_PATH, self._resources)
        app.router.add_get(f"{GROUP_PATH}/{names.TASK_PLURAL}", self._tasks)
        return app

    @staticmethod
    def _event(kind: str, item: dict[str, Any]) -> bytes:
        return json.dumps({"type": kind, "object": item}).encode()

    async def _core(self, _: web.Request) -> web.Response:
        resources = [_describe("namespaces", "Namespace"), _describe("events", "Event")]
        return web.json_response({"versions": ["v1"], "resources": resources})

    async def _extensions(self, _: web.Request) -> web.Response:
        return web.json_response({"resources": [_describe("customresourcedefinitions", "CustomResourceDefinition")]})

    async def _groups(self, _: web.Request) -> web.Response:
        groups = []
        for group, name in ((names.GROUP, names.VERSION), ("apiextensions.k8s.io", "v1")):
            version = {"groupVersion": f"{group}/{name}", "version": name}
            groups.append({"name": group, "versions": [version], "preferredVersion": version})
        return web.json_response({"groups": groups})

    async def _resources(self, _: web.Request) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=415, text="not this media type")
        return web.json_response({"resources": [_describe(names.TASK_PLURAL, names.TASK_KIND)]})

    async def _tasks(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        start = int(request.query.get("continue") or 0)
        self.lists += not start
        end = start + int(request.query["limit"])
        metadata = {"resourceVersion": str(self._version), "continue": str(end) if end < len(self.tasks) else ""}
        body = {"items": list(self.tasks.values())[start:end], "metadata": metadata}
        return web.Response(text=json.dumps(body), content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        lines = self._lines = asyncio.Queue()  # of the newest watch; one that was broken off takes nothing any more
        self._watches.append(lines)
        while (line := await lines.get()) is not None:
            await response.write(line + b"\n")
        return response

    async def _end_watches(self, _: web.Application) -> None:
        for lines in self._watches:
            lines.put_nowait(None)


def _describe(plural: str, kind: str) -> dict[str, Any]:
    verbs = ["list", "watch", "create", "patch", "delete"]
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}
