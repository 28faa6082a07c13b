"""Health and metrics over HTTP.

/healthz   the process can still work: its parts run. Failing means that a restart would help.
/readyz    it does work: everything it needs has been seen. Failing says what is missing. A replica that stands by is
           ready: it would work if it were its turn.
/metrics   its own metrics.
"""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Checks = Mapping[str, Callable[[], bool]]


def build_app(
    registry: CollectorRegistry, *, alive: Checks, ready: Checks, standby: Callable[[], bool] = lambda: False
) -> web.Application:
    """Return the application; each check is named after what holds when it passes."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(alive)

    async def readyz(_: web.Request) -> web.Response:
        if standby():
            return _answer({**alive, "stands by": standby})
        return _answer({**alive, **ready})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _answer(checks: Checks) -> web.Response:
    results = {name: check() for name, check in checks.items()}
    lines = "".join(f"{'ok  ' if good else 'FAIL'} {name}\n" for name, good in results.items())
    return web.Response(text=lines, status=200 if all(results.values()) else 503)
