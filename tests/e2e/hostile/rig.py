"""A lab whose operator sees the API server and Prometheus through fakes that can lie, and raw access to the cluster."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from e2e.hostile.api_proxy import ApiProxy
from e2e.hostile.fake_prometheus import FakePrometheus
from e2e.stage import wait_until
from perllm.api import names
from perllm.cluster.credentials import load_credentials
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.kubernetes.probe import answers
from perllm_lab.kubernetes.process import Process
from perllm_lab.lab import OPERATOR_LOG, Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario
from strategies.values import Object, encode

SCENARIO, SPEED = "modern", 5.0
AGE_METRIC, FRESH_S = "perllm_telemetry_age_seconds", 3.0
GONE = "Gone"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Reply:
    """The response of the API server."""

    status: int
    content: Object

    @property
    def is_accepted(self) -> bool:
        return self.status < 300


@dataclass(slots=True)
class Rig:
    """The lab, the fakes, and a session that sends what real clients do not."""

    lab: Lab
    api: ApiProxy
    prometheus: FakePrometheus
    session: aiohttp.ClientSession

    async def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str
    ) -> Reply:
        """Send a request to the API server as an admin."""
        data = None if body is None else encode(body)
        headers = {"Content-Type": content_type}
        url = self.lab.control_plane.url + path
        async with self.session.request(method, url, data=data, headers=headers, params=query) as answer:
            return Reply(answer.status, _parse(await answer.text()))

    async def read_status(self, namespace: str, name: str) -> Object:
        """Return the status of a task; the phase of one that does not exist is `Gone`."""
        reply = await self.send("GET", names.task_path(namespace, name))
        return (reply.content.get("status") or {}) if reply.is_accepted else {"phase": GONE}

    async def open_namespace(self, name: str) -> None:
        """Create a namespace and wait until pods can be created in it."""
        await self.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

        async def has_account() -> bool:
            return (await self.send("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")).is_accepted

        await wait_until(has_account, timeout_s=20)

    async def is_ready(self) -> bool:
        """Whether the operator reports that it is ready."""
        return await answers(f"{self.lab.health_url}/readyz")

    async def receives_metrics(self, timeout_s: float) -> bool:
        """Wait until the operator has fresh metrics; return whether it has them in time."""

        async def is_fresh() -> bool:
            url = f"{self.lab.health_url}/metrics"
            async with self.session.get(url) as answer:
                line = next(line for line in (await answer.text()).splitlines() if line.startswith(AGE_METRIC + " "))
            return float(line.split()[1]) < FRESH_S

        try:
            await wait_until(is_fresh, timeout_s=timeout_s)
        except AssertionError:
            return False
        return True

    def read_log(self, start: int) -> list[str]:
        """Return the lines of the operator's log from an offset on."""
        with self.lab.operator_log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace").splitlines()

    def log_size(self) -> int:
        """Return the size of the operator's log."""
        return self.lab.operator_log.stat().st_size


@asynccontextmanager
async def open_rig(binaries: Mapping[str, Path], folder: Path) -> AsyncIterator[Rig]:
    """Start everything."""
    async with FakePrometheus() as prometheus:
        telemetry = {"url": prometheus.url, "interval_s": 1.0, "timeout_s": 2.0, "max_backoff_s": 3.0}
        settings = LabSettings(SCENARIO, SPEED, operator_config={"telemetry": telemetry})
        lab = Lab(binaries, load_scenario(SCENARIO), folder, settings)
        prometheus.upstream = lab.prometheus.url
        async with lab, ApiProxy(load_credentials(lab.control_plane.write_kubeconfig(OPERATOR_USER))) as api:
            await _insert_proxy(lab, api)
            identity = load_credentials(lab.control_plane.admin_kubeconfig)
            connector = aiohttp.TCPConnector(ssl=identity.ssl_context() or True)
            async with aiohttp.ClientSession(connector=connector) as session:
                try:
                    yield Rig(lab, api, prometheus, session)
                finally:
                    await lab.operator.stop()


async def _insert_proxy(lab: Lab, api: ApiProxy) -> None:
    """Restart the operator behind the proxy."""
    await lab.operator.stop()
    file = lab.folder / "proxy.yaml"
    file.write_text(api.kubeconfig(), encoding="utf-8")
    *argv, _ = lab.operator.argv
    lab.operator = Process("operator", [*argv, file], log_file=lab.folder / OPERATOR_LOG)
    await lab.start_operator()


def _parse(text: str) -> Object:
    # orjson does not parse deeply nested objects.
    try:
        parsed: Object = json.loads(text)
    except json.JSONDecodeError:
        return {"message": text}
    return parsed
