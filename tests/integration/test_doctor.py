"""The doctor on a real API server and a real Prometheus: one FAIL for each thing that is missing."""

import asyncio
import copy
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest
import pytest_asyncio
import requests
import yaml

from perllm.api import names
from perllm.api.crd import task_crd
from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import load_credentials
from perllm.cluster.rbac import build_manifests, collection_path
from perllm.cluster.times import format_time
from perllm.config import Config
from perllm.doctor.examination import Examination
from perllm.doctor.finding import Level
from perllm.doctor.rights import Account
from perllm.telemetry.source import PrometheusSource
from perllm_lab.installation import install
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request

HOME, SERVED = "perllm-system", "served"
ACCOUNT = {"kind": "ServiceAccount", "name": "perllm", "namespace": HOME}
SCHEDULER = {**ACCOUNT, "name": "perllm-scheduler"}
NODE = "/api/v1/nodes/gpu-1"
POD = f"/api/v1/namespaces/{HOME}/pods/perllm-1"
LEASE = names.lease_path(HOME, "turns")
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llminferencetasks.perllm.io"
BINDING = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SERVED}/rolebindings/perllm-tasks"


@dataclass(slots=True)
class Place:
    """A cluster in which PerLLM seems to run, judging by its objects.

    Attributes:
        settings: of the operator.
        before: what was found before anything was installed.
    """

    plane: ControlPlane
    client: Client
    settings: dict[str, Any]
    before: list[str] = field(default_factory=list)

    async def examine(
        self, changes: dict[str, Any] | None = None, *, later_s: float = 0.0, client: Client | None = None
    ) -> list[str]:
        """Return the findings that are not ok, as lines, as they would be at a later time.

        With a client of its own the account looks at itself, as in the operator's pod.
        """
        config = Config.model_validate({**self.settings, **(changes or {})})
        source = PrometheusSource(config.telemetry, requests.Session())
        account = None if client else Account(HOME, "perllm")
        examination = Examination(
            client or self.client, self.plane.url, source, config, HOME, account, lambda: time.time() + later_s
        )
        try:
            return [str(one) async for one in examination.run() if one.level is not Level.OK]
        finally:
            source.close()

    async def run_command(self, *arguments: str) -> tuple[int | None, str]:
        file = self.plane.folder / "perllm.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        options = ["--config", str(file), "--kubeconfig", str(self.plane.admin_kubeconfig), "--namespace", HOME]
        argv = [sys.executable, "-m", "perllm", "doctor", *options, *arguments]
        child = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
        output, _ = await child.communicate()
        return child.returncode, output.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prometheus(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    async def answer(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=_describe_node(time.time()))

    app = aiohttp.web.Application()
    app.router.add_get("/metrics", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    targets = [ScrapeTarget("gpu", f"{host}:{port}", "/metrics", "gpu-1")]
    folder = tmp_path_factory.mktemp("prometheus")
    async with Prometheus(binaries["prometheus"], folder, targets, scrape_interval_s=0.5) as prometheus:
        yield prometheus
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(
    binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, prometheus: Prometheus
) -> AsyncIterator[Place]:
    """Shared: a test repairs what it damages."""
    folder = tmp_path_factory.mktemp("doctor")
    async with ControlPlane(binaries, folder) as plane, Client(load_credentials(plane.admin_kubeconfig)) as client:
        settings = {"namespaces": [SERVED], "leader_lease": "turns", "telemetry": {"url": prometheus.url}}
        place = Place(plane, client, settings)
        place.before = await place.examine()
        await _set_up(client)
        await _wait_for(place, None)
        yield place


def _describe_node(now_s: float) -> str:
    """Return the metrics of a node whose GPU draws a watt."""
    return (
        f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0"}} {1000.0 * now_s}\n'
        'DCGM_FI_DEV_POWER_USAGE{gpu="0"} 1\n'
        'node_network_receive_bytes_total{device="eth0"} 1\n'
        'node_network_speed_bytes{device="eth0"} 1\n'
    )


async def _set_up(client: Client) -> None:
    """Create every object of an installation and its cluster."""
    await install(client, [SERVED])
    await client.post("/api/v1/namespaces", {"metadata": {"name": HOME}})
    await client.post(f"/api/v1/namespaces/{HOME}/serviceaccounts", {"metadata": {"name": "perllm"}})
    for manifest in build_manifests(ACCOUNT, SCHEDULER, namespaces=[SERVED], namespace=HOME, lease="turns"):
        # The lab has created the same roles and bound them to users of its own.
        path = f"{collection_path(manifest)}/{manifest['metadata']['name']}"
        with suppress(ApiError):
            await client.delete(path)
        await client.post(collection_path(manifest), manifest)
    labels = {names.TIER_LABEL: "edge", names.GPU_TYPE_LABEL: "Tesla-T4"}
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    await client.post("/api/v1/nodes", {"metadata": {"name": "gpu-1", "labels": labels}, "spec": {"taints": taints}})
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    gpus = {"cpu": "4", "pods": "9", names.GPU_RESOURCE: "4"}
    await client.patch(f"{NODE}/status", {"status": {"capacity": gpus, "allocatable": gpus, **ready}})
    containers = [{"name": name, "image": "x"} for name in ("operator", "scheduler")]
    spec = {"schedulerName": "none", "serviceAccountName": "perllm", "containers": containers}
    await client.post(f"/api/v1/namespaces/{HOME}/pods", {"metadata": {"name": "perllm-1"}, "spec": spec})
    await client.patch(f"{POD}/status", _statuses(scheduler=True))
    # Nobody renews it while the tests of this file run.
    renewed = format_time(time.time() + 3600)
    lease = {"holderIdentity": "perllm-1_x", "renewTime": renewed, "acquireTime": renewed, "leaseDurationSeconds": 15}
    await client.post(LEASE.rpartition("/")[0], {"metadata": {"name": "turns"}, "spec": lease})


def _statuses(*, scheduler: bool) -> dict[str, Any]:
    known = {"image": "x", "imageID": "x", "restartCount": 0}
    ready = {"operator": True, "scheduler": scheduler}
    return {
        "status": {
            "containerStatuses": [{"name": name, "ready": is_ready, **known} for name, is_ready in ready.items()]
        }
    }


def _older_versions() -> list[dict[str, Any]]:
    versions = copy.deepcopy(task_crd()["spec"]["versions"])
    del versions[0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["deadlineMet"]
    return list(versions)


def _labels(value: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {names.TIER_LABEL: value}}}


async def _wait_for(place: Place, expected: str | None) -> list[str]:
    """Wait until the doctor reports what is expected, None for nothing; a schema is published with some delay."""
    lines: list[str] = []
    async with asyncio.timeout(30):
        while True:
            lines = await place.examine()
            if not lines if expected is None else any(expected in line for line in lines):
                return lines
            await asyncio.sleep(0.5)


async def test_an_empty_cluster_lacks_everything(place: Place) -> None:
    assert [line.partition(":")[0] for line in place.before] == [
        "FAIL resources",
        "FAIL resources",
        "FAIL resources",
        "FAIL resources",
        "FAIL pods of PerLLM",
        "FAIL rights",
        "FAIL lease",
        "FAIL nodes",
    ]


async def test_a_complete_installation_passes(place: Place) -> None:
    code, output = await place.run_command()
    assert code == 0
    assert output.endswith("0 warn, 0 FAIL\n")
    assert "has all" in output


GPUS = {"capacity": {names.GPU_RESOURCE: "4"}, "allocatable": {names.GPU_RESOURCE: "4"}}
NO_GPUS = {"capacity": {names.GPU_RESOURCE: None}, "allocatable": {names.GPU_RESOURCE: None}}
DAMAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "FAIL nodes: no node has the label": (NODE, _labels(None), _labels("edge")),
    "FAIL nodes: perllm.io/tier is neither edge nor cloud on gpu-1 ('fog')": (NODE, _labels("fog"), _labels("edge")),
    "FAIL nodes: labelled, but without": (f"{NODE}/status", {"status": NO_GPUS}, {"status": GPUS}),
    "FAIL pods of PerLLM: scheduler of perllm-1 is not ready": (
        f"{POD}/status",
        _statuses(scheduler=False),
        _statuses(scheduler=True),
    ),
    "perllm may not list/watch/delete llminferencetasks in served": (
        BINDING,
        {"subjects": []},
        {"subjects": [ACCOUNT]},
    ),
    "FAIL lease: no pod holds": (
        LEASE,
        {"spec": {"holderIdentity": ""}},
        {"spec": {"holderIdentity": "perllm-1_x"}},
    ),
    "from another version, without status.deadlineMet": (
        CRD,
        {"spec": {"versions": _older_versions()}},
        {"spec": {"versions": task_crd()["spec"]["versions"]}},
    ),
}


@pytest.mark.parametrize("expected", DAMAGES)
async def test_what_is_missing_in_the_cluster_fails(place: Place, expected: str) -> None:
    path, damage, repair = DAMAGES[expected]
    await place.client.patch(path, damage)
    try:
        failures = [line for line in await _wait_for(place, expected) if line.startswith("FAIL")]
        assert len({line.partition(":")[0] for line in failures}) == 1
    finally:
        await place.client.patch(path, repair)
        await _wait_for(place, None)


@pytest.mark.parametrize(
    ("telemetry", "expected"),
    [
        ({"url": "http://127.0.0.1:9"}, "cannot be reached; check telemetry.url"),
        ({"queries": {"energy": "watt[{window}] +"}}, "FAIL Prometheus: energy: "),
        ({"node_labels": ["host"]}, "name no known node in host, for example {gpu=0, instance=gpu-1, job=gpu}"),
    ],
)
async def test_what_prometheus_lacks_fails(place: Place, telemetry: dict[str, Any], expected: str) -> None:
    changes = {"telemetry": {**place.settings["telemetry"], **telemetry}}
    lines = await place.examine(changes)
    assert "FAIL" in lines[0]
    assert expected in "\n".join(lines)


async def test_abandoned_tasks_and_pods_fail(place: Place) -> None:
    manifest = task_manifest(Request("lonely", "m", 0.0, 200, 60, 1000, 60.0), namespace=SERVED)
    path = names.task_path(SERVED, "lonely")
    pod = {
        "metadata": {"name": "lonely-1", "labels": {names.TASK_LABEL: "lonely"}},
        "spec": {"schedulerName": "perllm", "containers": [{"name": "main", "image": "x"}]},
    }
    await place.client.post(names.tasks_path(SERVED), manifest)
    await place.client.post(names.pods_path(SERVED), pod)
    try:
        lines = await place.examine(later_s=40)
    finally:
        await place.client.delete(path)
        await place.client.delete(f"{names.pods_path(SERVED)}/lonely-1", {"gracePeriodSeconds": 0})
    assert [line for line in lines if line.startswith("FAIL")] == [
        "FAIL tasks: no operator has picked up served/lonely -> is the operator running, and does it serve their "
        "namespace (config.namespaces)?",
        "FAIL pods of tasks: no kube-scheduler has tried to schedule served/lonely-1 -> is one running with the "
        "profile perllm? Check the log of PerLLM's container scheduler",
    ]


async def test_the_operators_own_account_sees_all_but_its_pods(place: Place) -> None:
    kubeconfig = place.plane.write_kubeconfig(Account(HOME, "perllm").user)
    async with Client(load_credentials(kubeconfig)) as insider:
        (line,) = await place.examine(client=insider)
    assert line.startswith("warn pods of PerLLM: not checked: pods is forbidden")


async def test_an_api_server_that_does_not_answer_is_the_only_finding(place: Place) -> None:
    nobody = load_credentials(place.plane.admin_kubeconfig)
    gone = type(nobody)("https://127.0.0.1:9", nobody.ca_file, None, None, lambda: None)
    async with Client(gone) as client:
        (line,) = await place.examine(client=client)
    assert line.startswith("FAIL API server: ")


async def test_failures_end_with_1_and_can_be_read_by_machines(place: Place) -> None:
    code, output = await place.run_command("--prometheus", "http://127.0.0.1:9", "--output", "json")
    report = json.loads(output)
    assert code == 1
    assert report["counts"]["FAIL"] == 1
    assert [one["check"] for one in report["findings"] if one["level"] == "FAIL"] == ["Prometheus"]
