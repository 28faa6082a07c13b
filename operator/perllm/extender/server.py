"""The extender's HTTP server. It listens on the loopback interface only: kube-scheduler runs in the same pod."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from perllm.cluster.decoding import UndecodableError, decode
from perllm.extender.extender import Extender
from perllm.extender.protocol import binding_answer, filter_error
from perllm.guard import Guard, describe
from perllm.metrics import OperatorMetrics

MAX_BODY_BYTES = 64 * 2**20
"""A filter call names every node, and carries the pod: 10,000 nodes with names of 253 characters need 3 MB."""

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


def build_app(extender: Extender, metrics: OperatorMetrics, guard: Guard) -> web.Application:
    """Return the application with the three verbs."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)

    async def filter_(arguments: dict[str, Any]) -> Any:
        return extender.filter(arguments)

    async def prioritize(arguments: dict[str, Any]) -> Any:
        return extender.prioritize(arguments)

    app.router.add_post("/filter", _handle("filter", filter_, filter_error, metrics, guard))
    app.router.add_post("/prioritize", _handle("prioritize", prioritize, lambda message: [], metrics, guard))
    app.router.add_post("/bind", _handle("bind", extender.bind, binding_answer, metrics, guard))
    return app


def _handle(
    verb: str, work: Handler, answer_error: Callable[[str], Any], metrics: OperatorMetrics, guard: Guard
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Wrap a verb: decode the call, time it, and turn every failure into an answer that kube-scheduler understands."""
    timer, errors = metrics.extender.seconds.labels(verb), metrics.extender.errors.labels(verb)
    kind = f"{verb} call for pod"

    def fail(message: str) -> Any:
        errors.inc()
        return answer_error(message)

    async def answer(body: bytes) -> Any:
        try:
            arguments = decode(body)
            name = _read_name(arguments)
        except (UndecodableError, KeyError, TypeError) as error:
            return fail(f"PerLLM cannot read this {verb} call: {describe(error)}")
        try:
            result = await work(arguments)
        except Exception as error:
            guard.note(kind, name, error)
            return fail(f"PerLLM failed: {describe(error)}")
        guard.clear(kind, name)
        if isinstance(result, dict) and result.get("Error"):
            errors.inc()
        return result

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        with timer.time():
            result = await answer(body)
        return web.Response(body=orjson.dumps(result), content_type="application/json")

    return handle


def _read_name(arguments: dict[str, Any]) -> str:
    """Return namespace/name of the pod that a call is about.

    Raises:
        KeyError, TypeError: the call lacks what every verb needs.
    """
    if "Pod" not in arguments:
        _ = arguments["PodUID"], arguments["Node"]
        return f"{arguments['PodNamespace']}/{arguments['PodName']}"
    metadata = arguments["Pod"]["metadata"]
    _ = metadata["uid"]
    return f"{metadata['namespace']}/{metadata['name']}"
