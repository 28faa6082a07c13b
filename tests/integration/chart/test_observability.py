import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import pytest_asyncio
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from chart_generator.dashboard import list_queries
from integration.chart.helm import Helm, find
from perllm.agent.metrics import AgentMetrics
from perllm.extender.unbound_pods import SchedulerAnswer
from perllm.metrics import OperatorMetrics
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.snapshot import MISSING, Figure, NodeFigures, Quality, Snapshot
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget

SCRAPE_S = 0.2
FRESH = Figure(100.0, 0.0, Quality.FRESH)
RULES = {"prometheusRule": {"enabled": True}, "agent": {"enabled": True}}


def label(registry: CollectorRegistry, labels: str) -> str:
    """Return all metrics with labels as a monitor adds them."""
    text = generate_latest(registry).decode()
    labelled = re.sub(r"^(\w+)\{", rf"\1{{{labels},", text, flags=re.MULTILINE)
    return re.sub(r"^(\w+) (?!.*\{)", rf"\1{{{labels}}} ", labelled, flags=re.MULTILINE)


class Replica:
    """The metrics of an operator, with the labels that a ServiceMonitor adds; its counters grow with every scrape."""

    job = "perllm"

    def __init__(self, release: str, *, healthy: bool, full: bool = False) -> None:
        self.healthy, self.full = healthy, full
        self._labels = f'namespace="perllm-system",service="{release}-metrics"'
        self._registry = CollectorRegistry()
        self._metrics = OperatorMetrics(self._registry)
        telemetry = TelemetryMetrics(self._registry)
        telemetry.up.set(healthy)
        power = {f"gpu-{number}": FRESH for number in range(9)} | ({} if healthy else {"gpu-9": MISSING})
        telemetry.count_nodes(Snapshot({name: NodeFigures(power_w=figure) for name, figure in power.items()}))
        self._metrics.process.active.set(1)
        self._metrics.queue.waiting.set(5)
        self._metrics.queue.waiting_for_room.set(5 if full else 1)
        for answer in SchedulerAnswer:
            self._metrics.queue.unbound.labels(answer).set(3)
        for answer in (SchedulerAnswer.MISSING, SchedulerAnswer.ERROR):
            self._metrics.queue.unbound.labels(answer).set(0 if healthy else 1)
        self._metrics.fleet.agents.labels("true").set(9)
        self._metrics.fleet.agents.labels("false").set(0 if healthy else 1)

    def expose(self) -> str:
        self._metrics.tasks.deadlines.labels("edge", "true").inc(9)
        self._metrics.extender.seconds.labels("filter").observe(0.001 if self.healthy else 0.4)
        self._metrics.process.loop_lag.observe(0.001 if self.healthy else 0.8)
        if self.full:
            return label(self._registry, self._labels)
        if self.healthy:
            self._metrics.tasks.decisions.labels("cs-ucb", "edge", "false").inc()
        else:
            self._metrics.tasks.deadlines.labels("edge", "false").inc(9)
            self._metrics.extender.errors.labels("filter").inc()
            self._metrics.fleet.refusals.inc(10)
            self._metrics.queue.ledger_repairs.inc()
        return label(self._registry, self._labels)


class Agent:
    """The metrics of an agent, with the labels that a PodMonitor adds.

    Attributes:
        job: the value of the label `job`.
    """

    def __init__(self, release: str, *, healthy: bool) -> None:
        self.job = f"perllm-system/{release}-agent"
        self._labels = f'namespace="perllm-system",pod="{release}-agent-x"'
        self._registry = CollectorRegistry()
        metrics = AgentMetrics(self._registry)
        metrics.servers.known.labels("false").set(1)
        metrics.servers.down.set(0 if healthy else 1)
        metrics.report_wait.set(1 if healthy else 600)

    def expose(self) -> str:
        return label(self._registry, self._labels)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prometheus(
    binaries: dict[str, Path], helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """Scrapes four releases: one is healthy, one full, one has two unhealthy replicas, one has none."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules.yaml"
    groups = [
        group
        for release in ("healthy-perllm", "full-perllm", "unhealthy-perllm", "gone-perllm")
        for group in find(helm.render(RULES | {"fullnameOverride": release}), "PrometheusRule")["spec"]["groups"]
    ]
    rules.write_text(yaml.safe_dump({"groups": groups}))
    pods: dict[str, Replica | Agent] = {
        "/a": Replica("healthy-perllm", healthy=True),
        "/b": Replica("unhealthy-perllm", healthy=False),
        "/c": Replica("unhealthy-perllm", healthy=False),
        "/d": Replica("full-perllm", healthy=True, full=True),
        "/e": Agent("healthy-perllm", healthy=True),
        "/f": Agent("unhealthy-perllm", healthy=False),
    }

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=pods[request.path].expose())

    application = aiohttp.web.Application()
    application.router.add_get("/{path}", answer)
    runner = aiohttp.web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    targets = [ScrapeTarget(pod.job, f"{host}:{port}", path, path) for path, pod in pods.items()]
    async with Prometheus(
        binaries["prometheus"], folder, targets, scrape_interval_s=SCRAPE_S, rule_files=[rules]
    ) as prometheus:
        yield prometheus
    await runner.cleanup()


async def ask(prometheus: Prometheus, path: str, **query: str) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{prometheus.url}/api/v1/{path}", params=query) as answer,
    ):
        body = await answer.json()
        assert body["status"] == "success", body
        return body["data"]


async def list_alerts(prometheus: Prometheus) -> dict[str, set[str]]:
    """List the pending and firing alerts of each release."""
    groups = (await ask(prometheus, "rules", type="alert"))["groups"]
    return {group["name"]: {rule["name"] for rule in group["rules"] if rule["alerts"]} for group in groups}


async def test_alerts_concern_the_unhealthy_releases_only(prometheus: Prometheus) -> None:
    every = {rule["name"] for rule in (await ask(prometheus, "rules"))["groups"][0]["rules"]}
    expected = {
        "healthy-perllm": set(),
        "full-perllm": set(),
        "unhealthy-perllm": every - {"PerLLMDown"},
        "gone-perllm": {"PerLLMDown"},
    }

    async with asyncio.timeout(20):
        while await list_alerts(prometheus) != expected:  # noqa: ASYNC110 (there is no event for an evaluation of rules)
            await asyncio.sleep(SCRAPE_S)


async def test_prometheus_accepts_every_query_of_the_dashboard(prometheus: Prometheus) -> None:
    for query in list_queries():
        await ask(prometheus, "query", query=query)
