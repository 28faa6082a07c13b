import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiohttp.web
import pytest
import pytest_asyncio
import requests
import yaml
from prometheus_client import CollectorRegistry

from perllm.api.task_status import EnergyQuality
from perllm.config import Config
from perllm.costs.forecast import HOUR_S, HOURS
from perllm.costs.metrics import CostMetrics
from perllm.costs.outlook import TariffBook
from perllm.costs.service import EnergyCosts
from perllm.costs.settings import CostSettings
from perllm.energy.attribution import Window, attribute, estimate_idle_power_w
from perllm.guard import Guard
from perllm.telemetry.feeds import list_feeds
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.queries import MeterSettings, select_window
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import Quality
from perllm.telemetry.source import PrometheusSource, TelemetryError, TelemetryUnreachableError
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget

POWER_W = 100.0
RECEIVED_BPS = 8e6
SPEED_BPS = 1e9
SCRAPE_S = 0.5
STALE_S = 3.0
WINDOW_SAMPLES = 4
READY_MADE = [
    Config.model_validate(yaml.safe_load(path.read_text())["config"]).telemetry
    for path in (Path(__file__).parents[2] / "examples/values").glob("*.yaml")
]

Handler = Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.StreamResponse]]


class Exporter:
    """One GPU that draws 100 W, exported twice because two pods share it, and one link."""

    def __init__(self) -> None:
        self.address = ""
        self.times_ms: set[int] = set()

    async def answer(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """Return values with the time that they are of, as a scrape may take long."""
        now_ms = round(time.time() * 1000)
        now_s = now_ms / 1000
        self.times_ms.add(now_ms)
        lines = []
        for pod in ("a", "b"):
            labels = f'{{gpu="0",UUID="GPU-1",Hostname="edge-1",pod="{pod}"}}'
            lines.append(f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{labels} {now_s * POWER_W * 1000:.3f}")
            lines.append(f"DCGM_FI_DEV_POWER_USAGE{labels} {POWER_W}")
        for device in ("eth0", "veth12"):
            labels = f'{{device="{device}"}}'
            lines.append(f"node_network_receive_bytes_total{labels} {now_s * RECEIVED_BPS / 8:.3f}")
            lines.append(f"node_network_speed_bytes{labels} {SPEED_BPS / 8}")
        return aiohttp.web.Response(text="".join(f"{line} {now_ms}\n" for line in lines), content_type="text/plain")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exporter() -> AsyncIterator[Exporter]:
    exporter = Exporter()
    async with served(exporter.answer) as exporter.address:
        yield exporter


class served:  # noqa: N801
    """Serves a handler on a free port and yields its address."""

    def __init__(self, handler: Handler) -> None:
        app = aiohttp.web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        self._runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prometheus(
    binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, exporter: Exporter
) -> AsyncIterator[Prometheus]:
    """Is shared: a test that ends it starts it again."""
    folder = tmp_path_factory.mktemp("prometheus")
    targets = [ScrapeTarget(job="gpu", address=exporter.address, metrics_path="/metrics", instance="10.0.0.1:9100")]
    async with Prometheus(binaries["prometheus"], folder, targets, scrape_interval_s=SCRAPE_S) as prometheus:
        yield prometheus


@asynccontextmanager
async def polled(url: str, **settings: Any) -> AsyncIterator[Telemetry]:
    """Poll a Prometheus for the figures of node edge-1."""
    config = TelemetrySettings(
        url=url, interval_s=0.3, timeout_s=1, max_backoff_s=0.6, stale_after_s=STALE_S, **settings
    )
    source = PrometheusSource(config, requests.Session())
    telemetry = Telemetry(
        source,
        config,
        lambda: {"edge-1": ["10.0.0.1"]},
        time.time,
        TelemetryMetrics(CollectorRegistry()),
        guard=Guard(lambda _: None, Random(0)),
        rng=Random(0),
    )
    polling = asyncio.create_task(telemetry.run())
    try:
        yield telemetry
    finally:
        polling.cancel()
        source.close()


@pytest_asyncio.fixture(loop_scope="session")
async def telemetry(prometheus: Prometheus) -> AsyncIterator[Telemetry]:
    async with polled(prometheus.url) as telemetry:
        yield telemetry


async def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110 - there is no event for the change
            await asyncio.sleep(0.05)


async def test_figures_carry_values_and_the_times_of_their_samples(telemetry: Telemetry, exporter: Exporter) -> None:
    await eventually(lambda: telemetry.snapshot.of("edge-1").bandwidth_used_bps.quality is Quality.FRESH)

    figures = telemetry.snapshot.of("edge-1")

    assert figures.power_w.value == POWER_W
    assert figures.bandwidth_total_bps.value == SPEED_BPS
    assert figures.bandwidth_used_bps.value == pytest.approx(RECEIVED_BPS, rel=0.05)
    times_ms = {round(one.sampled_s * 1000) for one in figures.figures().values() if one.sampled_s is not None}
    assert times_ms
    assert times_ms <= exporter.times_ms


async def test_energy_of_a_task_is_measured(telemetry: Telemetry) -> None:
    await eventually(lambda: len(telemetry.energy.intervals("edge-1").energy_j) > 1)
    start_s = time.time()
    await eventually(lambda: sum(telemetry.energy.intervals("edge-1").times_s > start_s) > WINDOW_SAMPLES)
    window = Window("a", start_s, time.time())

    await eventually(lambda: telemetry.energy.covers("edge-1", window.end_s))
    intervals = telemetry.energy.intervals("edge-1")
    found = attribute(intervals, [window], estimate_idle_power_w(intervals, [window]))["a"]

    assert found.energy_j == pytest.approx(POWER_W * (window.end_s - window.start_s), rel=0.05)
    assert found.quality is EnergyQuality.MEASURED


async def test_energy_of_a_node_that_has_only_power_is_its_integral(prometheus: Prometheus) -> None:
    board = MeterSettings(name="board", part="server", power="DCGM_FI_DEV_POWER_USAGE[{window}]", power_unit_w=0.5)
    async with polled(prometheus.url, meters=(board,), matchers={"job": "gpu"}) as telemetry:
        await eventually(lambda: len(telemetry.energy.intervals("edge-1").energy_j) > 2)
        found = telemetry.energy.intervals("edge-1")

    assert found.meters == ("board",)
    assert found.energy_j.sum() == pytest.approx(POWER_W / 2 * (found.times_s[-1] - found.times_s[0]))


async def test_series_of_another_cluster_are_not_asked_for(prometheus: Prometheus) -> None:
    async with polled(prometheus.url, matchers={"job": "elsewhere"}) as telemetry:
        await eventually(lambda: telemetry.healthy)

        assert telemetry.snapshot.of("edge-1").power_w.quality is Quality.MISSING


async def test_queries_of_all_ready_made_values_are_valid(prometheus: Prometheus) -> None:
    source = PrometheusSource(TelemetrySettings(url=prometheus.url), requests.Session())
    try:
        for settings in READY_MADE:
            for feed in list_feeds(settings):
                await source.query(select_window(feed.query, 60.0, {"cluster": "edge"}))
    finally:
        source.close()


async def test_tariffs_learn_the_pattern_of_a_week(prometheus: Prometheus) -> None:
    # The hour of the day is a series that reaches into the past without having been scraped.
    settings = CostSettings.model_validate({"money": [{"per_kwh": 0, "query": "hour()"}]})
    source, book = (
        PrometheusSource(TelemetrySettings(url=prometheus.url), requests.Session()),
        TariffBook.build(settings),
    )
    costs = EnergyCosts(
        book,
        source,
        dict,
        lambda outlook: None,
        metrics=CostMetrics(CollectorRegistry()),
        guard=Guard(lambda _: None, Random(0)),
        unix_now=time.time,
    )
    try:
        await costs.query()
    finally:
        source.close()
    now_s = time.time()
    hours = [datetime.fromtimestamp(now_s + ahead * HOUR_S, UTC).hour for ahead in range(HOURS)]
    assert book.money[0].expect([now_s + ahead * HOUR_S for ahead in range(HOURS)]) == pytest.approx(hours, abs=1e-6)


async def test_outage_makes_figures_stale_and_restart_makes_them_fresh(
    telemetry: Telemetry, prometheus: Prometheus
) -> None:
    await eventually(lambda: telemetry.healthy and telemetry.snapshot.of("edge-1").power_w.quality is Quality.FRESH)

    await prometheus.kill()
    await eventually(lambda: telemetry.snapshot.of("edge-1").power_w.quality is Quality.STALE)
    assert not telemetry.healthy
    assert telemetry.snapshot.of("edge-1").power_w.value == POWER_W

    await prometheus.start()
    await eventually(lambda: telemetry.healthy and telemetry.snapshot.of("edge-1").power_w.quality is Quality.FRESH)


async def ask(address: str, token_file: Path | None = None, *, timeout_s: float = 30.0) -> None:
    settings = TelemetrySettings(url=f"http://{address}", timeout_s=timeout_s, token_file=token_file)
    source = PrometheusSource(settings, requests.Session())
    try:
        await source.query("up[10s]")
    finally:
        source.close()


async def test_a_query_that_prometheus_rejects_is_reported_in_its_words(prometheus: Prometheus) -> None:
    settings = TelemetrySettings(url=prometheus.url)
    source = PrometheusSource(settings, requests.Session())
    try:
        with pytest.raises(TelemetryError, match=r"rejects the query 'sum\('; correct it .*parse error"):
            await source.query("sum(")
        with pytest.raises(TelemetryError, match="returned one value per series"):
            await source.query("sum(vector(1))")
        with pytest.raises(TelemetryError, match="returned a single value without labels"):
            await source.query("1 + 1")
    finally:
        source.close()


async def test_server_that_hangs_times_out_and_is_not_retried() -> None:
    requests_seen = 0

    async def hang(request: aiohttp.web.Request) -> aiohttp.web.Response:
        nonlocal requests_seen
        requests_seen += 1
        await asyncio.sleep(3600)
        return aiohttp.web.Response()

    async with served(hang) as address:
        with pytest.raises(TelemetryUnreachableError, match="did not answer in time"):
            await ask(address, timeout_s=0.5)
    assert requests_seen <= 1


async def test_server_that_is_not_there_is_unreachable_at_once() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # no other server may take the port, and nothing listens
        with pytest.raises(TelemetryUnreachableError, match=r"cannot be reached; check telemetry\.url"):
            await ask("{}:{}".format(*silent.getsockname()))


async def test_token_is_read_for_every_request(tmp_path: Path) -> None:
    seen = []

    async def handler(request: aiohttp.web.Request) -> aiohttp.web.Response:
        seen.append(request.headers.get("Authorization"))
        return aiohttp.web.json_response({"status": "success", "data": {"result": []}})

    token_file = tmp_path / "token"
    async with served(handler) as address:
        for token in ("old", "new"):
            token_file.write_text(f"{token}\n")
            await ask(address, token_file)

    assert seen == ["Bearer old", "Bearer new"]
