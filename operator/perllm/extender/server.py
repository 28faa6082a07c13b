"""The extender's HTTP server. It listens on the loopback interface only: kube-scheduler runs beside it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from perllm.extender.extender import Extender
from perllm.extender.protocol import binding_answer, filter_error
from perllm.metrics import OperatorMetrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 2**20
"""A filter call names every node, and carries the pod: 10,000 nodes with names of 253 characters need 3 MB."""

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


def build_app(extender: Extender, metrics: OperatorMetrics) -> web.Application:
    """Return the application with the three verbs."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)

    async def filter_(arguments: dict[str, Any]) -> Any:
        return extender.filter(arguments)

    async def prioritize(arguments: dict[str, Any]) -> Any:
        return extender.prioritize(arguments)

    app.router.add_post("/filter", _handle("filter", filter_, filter_error, metrics))
    app.router.add_post("/prioritize", _handle("prioritize", prioritize, lambda message: [], metrics))
    app.router.add_post("/bind", _handle("bind", extender.bind, binding_answer, metrics))
    return app


def _handle(
    verb: str, work: Handler, refuse: Callable[[str], Any], metrics: OperatorMetrics
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Wrap a verb: decode, time, and answer every failure in kube-scheduler's terms instead of breaking off."""
    timer, errors = metrics.extender.labels(verb), metrics.extender_errors.labels(verb)

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        with timer.time():
            try:
                answer = await work(orjson.loads(body))
                failed = isinstance(answer, dict) and bool(answer.get("Error"))
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                answer, failed = refuse(f"PerLLM cannot read this {verb} call: {error!r}"), True
            except Exception as error:
                log.exception("%s call failed", verb)
                answer, failed = refuse(f"PerLLM failed: {error!r}"), True
            if failed:
                errors.inc()
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    return handle
