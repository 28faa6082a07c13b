from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from perllm.health import build_app
from perllm.metrics import OperatorMetrics


def client(*, runs: bool = True, synced: bool = True, stands_by: bool = False) -> TestClient:
    registry = CollectorRegistry()
    OperatorMetrics(registry).process.watch_restarts.inc()
    alive, ready = {"watch runs": lambda: runs}, {"nodes were listed": lambda: synced}
    app = build_app(registry, alive=alive, ready=ready, standby=lambda: stands_by)
    return TestClient(TestServer(app))


async def test_a_process_that_works_is_healthy_and_ready() -> None:
    async with client() as http:
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).status == 200


async def test_what_is_missing_is_named_and_does_not_ask_for_a_restart() -> None:
    async with client(synced=False) as http:
        ready = await http.get("/readyz")
        assert (ready.status, await ready.text()) == (503, "ok   watch runs\nFAIL nodes were listed\n")
        assert (await http.get("/healthz")).status == 200


async def test_a_replica_that_stands_by_is_ready_to_take_over() -> None:
    async with client(synced=False, stands_by=True) as http:
        ready = await http.get("/readyz")
        assert (ready.status, await ready.text()) == (200, "ok   watch runs\nok   standby\n")


async def test_a_broken_part_is_unhealthy_and_not_ready() -> None:
    async with client(runs=False) as http:
        for path in ("/healthz", "/readyz"):
            answer = await http.get(path)
            assert answer.status == 503
            assert "FAIL watch runs" in await answer.text()


async def test_metrics_are_exposed_for_prometheus() -> None:
    async with client() as http:
        answer = await http.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "perllm_watch_restarts_total 1.0" in await answer.text()


async def test_single_metrics_are_exposed_without_the_others() -> None:
    async with client() as http:
        answer = await http.get("/metrics", params={"name[]": "perllm_watch_restarts_total"})
        samples = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
        assert samples == ["perllm_watch_restarts_total 1.0"]
