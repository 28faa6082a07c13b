"""Health and metrics over HTTP.

/healthz   whether all parts of the process are running. If it fails, a restart would help.
/readyz    whether the process has everything it needs; if it fails, it says what is missing. A standby replica is
           ready, since it could become active.
/metrics   the process's own metrics; with name[]=NAME, as often as needed, only those of these names.
"""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Checks = Mapping[str, Callable[[], bool]]


def build_app(
    registry: CollectorRegistry, *, alive: Checks, ready: Checks, standby: Callable[[], bool] = lambda: False
) -> web.Application:
    """Return the application; the name of each check states what is true if it passes."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(alive)

    async def readyz(_: web.Request) -> web.Response:
        if standby():
            return _answer({**alive, "standby": standby})
        return _answer({**alive, **ready})

    async def metrics(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", [])
        found = registry.restricted_registry(names) if names else registry
        return web.Response(body=generate_latest(found), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _answer(checks: Checks) -> web.Response:
    results = {name: check() for name, check in checks.items()}
    lines = "".join(f"{'ok  ' if good else 'FAIL'} {name}\n" for name, good in results.items())
    return web.Response(text=lines, status=200 if all(results.values()) else 503)
