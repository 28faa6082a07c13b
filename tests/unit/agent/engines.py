"""A model server with the endpoints of an engine, over real HTTP."""

import asyncio
from typing import Any

from aiohttp import web

from unit.completions.model_server import FakeModelServer, Handler

VLLM_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
vllm:num_requests_waiting_by_reason{{reason="capacity"}} 99.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:generation_tokens_total{{engine="0",model_name="m"}} 1.0e+06
"""


class FakeEngine(FakeModelServer):
    """A model server of any engine; what it lacks is answered with 404.

    Attributes:
        pages: what to answer at each path.
        looks: the paths that were asked for, in order.
        loads: the models that it was asked to load, as Ollama is.
        load_s: how long it takes to load one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []
        self.loads: list[str] = []
        self.load_s = 0.0
        self.pages: dict[str, Handler] = {"/health": page(""), "/v1/models": list_models("m", owner="vllm")}

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def build_app(self) -> web.Application:
        app = super().build_app()
        app.router.add_post("/api/generate", self._load)
        app.router.add_get("/{path:.*}", self._show)
        return app

    def show_load(self, running: float, waiting: float) -> None:
        self.pages["/metrics"] = page(VLLM_METRICS.format(running=running, waiting=waiting))

    def become_ollama(self, *models: str, loaded: tuple[str, ...] = ()) -> None:
        self.pages["/v1/models"] = list_models(*models, owner="library")
        self.pages["/api/version"] = page({"version": "0.12.6"})
        self.pages["/api/ps"] = page({"models": [{"name": name, "model": name} for name in loaded]})

    async def _load(self, request: web.Request) -> web.StreamResponse:
        self.loads.append((await request.json())["model"])
        await asyncio.sleep(self.load_s)
        return web.json_response({"done": True, "done_reason": "load"})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        self.looks.append(request.path)
        handler = self.pages.get(request.path, page("", 404))
        return await handler(request)


def page(content: Any, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if isinstance(content, str):
            return web.Response(text=content, status=status)
        return web.json_response(content, status=status)

    return handler


def list_models(*models: str, owner: str = "someone") -> Handler:
    return page({"object": "list", "data": [{"id": model, "owned_by": owner} for model in models]})
