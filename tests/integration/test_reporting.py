"""The bill and the report from a real Prometheus that scrapes the operator's counters, over a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from perllm import health
from perllm.api.task_status import EnergyQuality, Observation, TaskPhase
from perllm.cli import main
from perllm.energy.accounts import AccountMetrics, EnergyParts
from perllm.energy.bill import BillMetrics, Owner
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget

SCRAPE_S = 0.5
STEPS_S = 2.0
QUERY = 'perllm_bill_joules_total{payer="chat", part="inference"}'
CHAT, BATCH = Owner("chat", "red"), Owner("batch")


class Exporter:
    """What an operator exports; `restart` begins again at 0 at the same address."""

    def __init__(self) -> None:
        self.address = ""
        self.restart()

    def restart(self) -> None:
        registry = CollectorRegistry()
        self._accounts, self._bill = AccountMetrics(registry), BillMetrics(registry)
        self.app = health.build_app(registry, alive={}, ready={})

    def work(self, chat_j: float, batch_j: float) -> None:
        """Account for a task of each namespace, and for an idle node."""
        self._accounts.add("n", EnergyParts(chat_j + batch_j + 50.0, {"a": chat_j, "b": batch_j}, 0.0, 40.0))
        observed = Observation(prompt_tokens=100, tokens=10)
        for owner, energy_j in ((CHAT, chat_j), (BATCH, batch_j)):
            self._bill.charge(owner, energy_j)
            self._bill.note_measurement(owner, EnergyQuality.MEASURED, 1.0)
            self._bill.note_end(owner, TaskPhase.SUCCEEDED.value, True, observed)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        route = await self.app.router.resolve(request)
        return await route.handler(request)


@pytest_asyncio.fixture(loop_scope="session")
async def exporter() -> AsyncIterator[Exporter]:
    exporter = Exporter()
    server = web.Application()
    server.router.add_get("/metrics", exporter.answer)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    exporter.address = "{}:{}".format(*runner.addresses[0][:2])
    yield exporter
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def prometheus(binaries: dict[str, Path], tmp_path: Path, exporter: Exporter) -> AsyncIterator[Prometheus]:
    targets = [ScrapeTarget(job="perllm", address=exporter.address, metrics_path="/metrics", instance="perllm-0")]
    async with Prometheus(binaries["prometheus"], tmp_path, targets, scrape_interval_s=SCRAPE_S) as prometheus:
        exporter.work(100.0, 10.0)
        await wait_scraped(prometheus, 100.0)
        exporter.work(200.0, 20.0)
        await wait_scraped(prometheus, 300.0)
        exporter.restart()
        exporter.work(40.0, 4.0)
        await wait_scraped(prometheus, 40.0)
        yield prometheus


async def wait_scraped(prometheus: Prometheus, chat_j: float) -> None:
    """Wait until Prometheus has scraped this value, and until the step of the report that it is in is over."""
    url = f"{prometheus.url}/api/v1/query"
    async with asyncio.timeout(30), ClientSession() as session:
        while True:
            async with session.get(url, params={"query": QUERY}) as answer:
                found = (await answer.json())["data"]["result"]
            if [float(one["value"][1]) for one in found] == [chat_j]:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(STEPS_S)


async def call(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_bill_and_report_contain_all_of_it_over_a_restart(prometheus: Prometheus, tmp_path: Path) -> None:
    bill = json.loads(await call("bill", "--prometheus", prometheus.url, "--since", "2m", "--output", "json"))

    lines = {line["payer"]: line for line in bill["payers"]}
    assert {name: line["joules"] for name, line in lines.items()} == {"chat": 340, "batch": 34}
    assert lines["chat"]["tasks"] == lines["chat"]["deadlines_met"] == 3
    assert (lines["chat"]["output_tokens"], lines["chat"]["transmission_joules"]) == (30, 3)
    assert {name: rest["joules"] for name, rest in bill["rest"].items()} == pytest.approx(
        {"foreign": 0, "idle": 120, "unattributed": 30, "measured": 524}
    )

    by_label = await call("bill", "--prometheus", prometheus.url, "--since", "2m", "--by", "label", "--output", "csv")
    assert [line.split(",")[1] for line in by_label.splitlines()[1:3]] == ["red", "none"]

    page = tmp_path / "report.html"
    await call("report", "--prometheus", prometheus.url, "--since", "2m", "--output", str(page))
    assert "6 of 6 tasks" in page.read_text("utf-8")
