"""The fleet's HTTP server: one port, each node's metrics and model server at paths of its own, and fault injection."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from perllm_lab.nodes.completions import CompletionRoutes
from perllm_lab.nodes.host import Host
from perllm_lab.nodes.metrics import CONTENT_TYPE, render_exporters
from perllm_lab.nodes.model_server import SimulatedServer

MAX_BODY_BYTES = 4 * 2**20


class ExportedFleet(Protocol):
    """What the server exposes and controls."""

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The nodes by name."""

    @property
    def speed(self) -> float:
        """Simulated seconds per wall second."""

    @property
    def late_s(self) -> Sequence[float]:
        """By how many real seconds work was done too late."""

    def totals(self) -> dict[str, object]:
        """Return energy and work of all nodes."""

    def troubles(self) -> list[str]:
        """Return why the fleet is not healthy; empty when it is."""

    def cut_power(self, name: str) -> None:
        """Cut the power of a node."""

    async def boot(self, name: str) -> None:
        """Boot the node."""


class Exporter:
    """Serves on `host:port`, with port 0 on a free one. An asynchronous context manager."""

    def __init__(self, fleet: ExportedFleet, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._fleet = fleet
        self._address = (host, port)
        # A request ends when its client closes the connection.
        self._runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._runner.addresses[0][1])

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_routes(CompletionRoutes(self._server).build())
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/truth", self._truth)
        app.router.add_get("/lateness", self._lateness)
        app.router.add_get("/nodes/{name}/exporters", self._exporters)
        app.router.add_post("/nodes/{name}/cut-power", self._cut_power)
        app.router.add_post("/nodes/{name}/boot", self._boot)
        app.router.add_post("/nodes/{name}/refuse", self._refuse)
        app.router.add_post("/nodes/{name}/accept", self._accept)
        app.router.add_post("/nodes/{name}/clock/{ahead_s}", self._set_clock)
        app.router.add_post("/nodes/{name}/server/stop", self._stop_server)
        app.router.add_post("/nodes/{name}/server/start", self._start_server)
        app.router.add_post("/nodes/{name}/server/max-waiting/{count}", self._set_max_waiting)
        app.router.add_post("/nodes/{name}/server/hide-load", self._hide_load)
        return app

    async def _exporters(self, request: web.Request) -> web.Response:
        machine = self._host(request).machine
        if not machine.is_up:
            raise web.HTTPServiceUnavailable(text="the node is down")
        body = render_exporters(machine.spec, machine.sample(), self._fleet.speed)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, request: web.Request) -> web.Response:
        troubles = self._fleet.troubles()
        return web.Response(text="\n".join(troubles) or "ok", status=503 if troubles else 200)

    async def _truth(self, request: web.Request) -> web.Response:
        return web.json_response(self._fleet.totals())

    async def _lateness(self, _: web.Request) -> web.Response:
        return web.json_response(list(self._fleet.late_s))

    async def _cut_power(self, request: web.Request) -> web.Response:
        self._fleet.cut_power(self._host(request).machine.spec.name)
        return web.Response(text="down")

    async def _boot(self, request: web.Request) -> web.Response:
        await self._fleet.boot(self._host(request).machine.spec.name)
        return web.Response(text="up")

    async def _refuse(self, request: web.Request) -> web.Response:
        self._host(request).kubelet.refuses = True
        return web.Response(text="refuses pods")

    async def _accept(self, request: web.Request) -> web.Response:
        self._host(request).kubelet.refuses = False
        return web.Response(text="accepts pods")

    async def _set_clock(self, request: web.Request) -> web.Response:
        ahead_s = request.match_info["ahead_s"]
        self._host(request).kubelet.set_clock(float(ahead_s))
        return web.Response(text=f"the clock is ahead by {ahead_s} s")

    async def _stop_server(self, request: web.Request) -> web.Response:
        self._server(request).stop()
        return web.Response(text="the model server is down")

    async def _start_server(self, request: web.Request) -> web.Response:
        self._server(request).start()
        return web.Response(text="the model server is up")

    async def _set_max_waiting(self, request: web.Request) -> web.Response:
        count = request.match_info["count"]
        self._server(request).max_waiting = None if count == "any" else int(count)
        return web.Response(text=f"requests are accepted while fewer than {count} wait")

    async def _hide_load(self, request: web.Request) -> web.Response:
        self._server(request).shows_load = False
        return web.Response(text="the model server has no metrics")

    def _server(self, request: web.Request) -> SimulatedServer:
        return self._host(request).server

    def _host(self, request: web.Request) -> Host:
        host = self._fleet.hosts.get(request.match_info["name"])
        if host is None:
            raise web.HTTPNotFound(text="no such node")
        return host
