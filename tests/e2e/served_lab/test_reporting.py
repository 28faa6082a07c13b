"""The bill of real tasks, pods and requests, next to their statuses and to what nodes measured."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from e2e.requests import synthetic_requests
from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.cli import main
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget
from perllm_lab.workload.manifests import served_task_manifest, task_manifest

TASKS = 20
SCRAPE_S = 1.0


async def bill(prometheus: Prometheus, by: str) -> dict[str, Any]:
    arguments = ["bill", "--prometheus", prometheus.url, "--since", "10m", "--by", by, "--output", "json"]
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


async def test_pods_and_requests_are_billed_as_their_statuses_say_and_the_bill_is_what_nodes_measured(
    stage: Stage, binaries: dict[str, Path], tmp_path: Path
) -> None:
    address = stage.lab.health_url.removeprefix("http://")
    target = ScrapeTarget(job="perllm", address=address, metrics_path="/metrics", instance="perllm-0")
    async with Prometheus(binaries["prometheus"], tmp_path, [target], scrape_interval_s=SCRAPE_S) as prometheus:
        requests = synthetic_requests(stage.lab.scenario, TASKS, rate_per_s=2.0, seed=[5])
        for number, request in enumerate(requests):
            build, team = (task_manifest, "pods") if number % 2 else (served_task_manifest, "requests")
            manifest = build(request, namespace=stage.namespace)
            manifest["metadata"]["labels"] = {"team": team}
            await stage.lab.client.post(names.tasks_path(stage.namespace), manifest)
        tasks = await stage.wait_all_settled([one.name for one in requests], timeout_s=180)
        observed = [task["status"]["observed"] for task in tasks.values()]
        used_j: float = sum(one.get("energyJoules", 0.0) for one in observed)

        billed_j = 0.0

        async def is_billed() -> bool:
            nonlocal billed_j
            billed_j = await stage.metric("perllm_bill_joules_total", by="namespace")
            return billed_j > 0.9 * used_j

        await wait_until(is_billed, timeout_s=120, describe=lambda: f"{billed_j:.0f} of {used_j:.0f} J billed")
        await asyncio.sleep(3 * SCRAPE_S)
        by_namespace, by_label = await bill(prometheus, "namespace"), await bill(prometheus, "label")

    (line,) = by_namespace["payers"]
    assert (line["payer"], line["tasks"]) == (stage.namespace, TASKS)
    assert line["deadlines_met"] == sum(task["status"]["deadlineMet"] for task in tasks.values())
    assert line["output_tokens"] == sum(one["tokens"] for one in observed)
    print(used_j, line, by_namespace["rest"])
    # A status is written before all is known of the tasks that ran at the same time.
    assert line["joules"] + line["transmission_joules"] == pytest.approx(used_j, rel=0.15)
    assert {one["payer"]: one["tasks"] for one in by_label["payers"]} == {"pods": TASKS / 2, "requests": TASKS / 2}
    assert sum(one["joules"] for one in by_label["payers"]) == pytest.approx(line["joules"])
    rest = {name: one["joules"] for name, one in by_namespace["rest"].items()}
    assert line["joules"] + rest["foreign"] + rest["idle"] + rest["unattributed"] == pytest.approx(rest["measured"])
    assert abs(rest["unattributed"]) < 0.05 * rest["measured"]
