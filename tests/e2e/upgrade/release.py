"""A release of the chart on a lab: Helm installs its objects, and its two programs run as processes with its rights."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from e2e.stage import wait_until
from integration.chart.helm import NAMESPACE, Helm
from perllm.api import names
from perllm.api.crd import list_crds
from perllm.cluster.authors import build_author_policy
from perllm.cluster.client import ApiError, Client
from perllm.cluster.rbac import build_manifests, collection_path
from perllm_lab.installation import OPERATOR_USER, SCHEDULER_USER, rbac_user, wait_served
from perllm_lab.kubernetes.components import complete_configuration
from perllm_lab.kubernetes.process import Process, ProcessError
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SCENARIO, SPEED, SCRAPE_S = "modern", 1.5, 2.0
NAME = "perllm"
# The chart demands it, since pods are reached at their own address.
EVERYWHERE = "0.0.0.0"
# The pods of the release run on no node: its programs are processes of the lab.
NOWHERE = {"nodeSelector": {"kubernetes.io/hostname": "none"}}
ACTIVE_S = 60.0
RESTART_S = 1.0


@dataclass(slots=True)
class Release:
    """The release.

    Attributes:
        lab: on which nothing else of PerLLM is installed.
        helm: installs the chart.
        agents: the agents of all nodes, if the version has any.
        is_up: whether the programs of a version should run.
    """

    lab: Lab
    helm: Helm
    agents: Process | None = None
    is_up: bool = False

    async def install(self, source: Path) -> None:
        """Install the version whose source is in a folder, or upgrade to it."""
        config = yaml.safe_load((self.lab.folder / "operator.yaml").read_text())
        config["server"]["health_host"] = EVERYWHERE
        values: dict[str, Any] = {"config": config, **NOWHERE}
        if has_agents(source):
            values["agent"] = {"enabled": True, **NOWHERE}
        await self._call("upgrade", "--install", NAME, str(source / "charts" / "perllm"), values=values)
        await self._replace_programs(source)

    async def roll_back(self, source: Path) -> None:
        """Return to the version before, whose source is in a folder."""
        await self._call("rollback", NAME)
        await self._replace_programs(source)

    async def keep_running(self) -> None:
        """Start again what ended by itself, as the kubelet does: on a starved machine both lose their lease."""
        while True:
            await asyncio.sleep(RESTART_S)
            if self.is_up:
                with suppress(ProcessError):
                    await self.lab.operator.start()
                    await self.lab.control_plane.processes[SCHEDULER_USER].start()

    async def _call(self, *arguments: str, values: Mapping[str, Any] | None = None) -> None:
        place = ("--namespace", NAMESPACE, "--kubeconfig", str(self.lab.control_plane.admin_kubeconfig))
        await asyncio.to_thread(partial(self.helm, *arguments, *place, values=values))

    async def _replace_programs(self, source: Path) -> None:
        """End the pods of one version and start those of another, as its Deployment and its DaemonSet do."""
        lab, control_plane = self.lab, self.lab.control_plane
        self.is_up = False
        if self.agents is not None:
            await self.agents.stop()
        await asyncio.gather(control_plane.stop_component(SCHEDULER_USER), lab.operator.stop())
        data = (await lab.client.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}"))["data"]
        kubeconfig = await self._authenticate(SCHEDULER_USER)
        configuration = complete_configuration(yaml.safe_load(data["scheduler.yaml"]), kubeconfig)
        (control_plane.folder / f"{SCHEDULER_USER}.yaml").write_text(yaml.safe_dump(configuration))
        file = lab.folder / "release.yaml"
        file.write_text(data["perllm.yaml"])
        kubeconfig = await self._authenticate(OPERATOR_USER)
        argv: list[str | Path] = [sys.executable, "-m", "perllm", "run", "--config", file, "--kubeconfig", kubeconfig]
        environment = build_environment(source)
        lab.operator = Process("operator", argv, log_file=lab.operator_log, environment=environment)
        await asyncio.gather(lab.start_operator(), control_plane.start_component(SCHEDULER_USER))
        self.is_up = True
        await wait_until(self._is_active, timeout_s=ACTIVE_S, describe=lambda: "the operator is not active")
        self.agents = lab.build_agents(environment) if has_agents(source) else None
        if self.agents is not None:
            await wait_served(lab.client, names.node_servers_path())
            await self.agents.start()
            await self.agents.wait_until(lab.serves_all, timeout_s=ACTIVE_S)

    async def _authenticate(self, account: str) -> Path:
        """Return a kubeconfig with the token of a service account, which has the name of the lab's user."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        token = (await self.lab.client.post(path, {"spec": {}}))["status"]["token"]
        file = self.lab.control_plane.write_kubeconfig(account)
        content = yaml.safe_load(file.read_text())
        content["users"][0]["user"] = {"token": token}
        file.write_text(yaml.safe_dump(content))
        return file

    async def _is_active(self) -> bool:
        url = f"{self.lab.health_url}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return "perllm_active 1.0" in await answer.text()


def has_agents(source: Path) -> bool:
    """Return whether the version whose source is in a folder knows served tasks."""
    return (source / "operator/perllm/agent").is_dir()


def build_environment(source: Path) -> dict[str, str]:
    """Return the environment of a program of the version whose source is in a folder."""
    return {**os.environ, "PYTHONPATH": str(source / "operator"), "POD_NAMESPACE": NAMESPACE}


@asynccontextmanager
async def open_release(binaries: Mapping[str, Path], folder: Path) -> AsyncIterator[Release]:
    """Start a lab, and remove what it has installed itself."""
    lab = Lab(binaries, load_scenario(SCENARIO), folder, LabSettings(SCENARIO, SPEED, scrape_interval_s=SCRAPE_S))
    async with lab:
        await lab.control_plane.stop_component(SCHEDULER_USER)
        await lab.operator.stop()
        await _uninstall(lab.client)
        await lab.client.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        release = Release(lab, Helm(binaries["helm"]))
        restarts = asyncio.create_task(release.keep_running())
        try:
            yield release
        finally:
            restarts.cancel()
            if release.agents is not None:
                await release.agents.stop()
            await lab.operator.stop()


async def _uninstall(client: Client) -> None:
    """Remove the lab's own installation, which is not one by Helm."""
    users = rbac_user(OPERATOR_USER), rbac_user(SCHEDULER_USER)
    for manifest in [*build_manifests(*users), *build_author_policy()]:
        await client.delete(f"{collection_path(manifest)}/{manifest['metadata']['name']}")
    for definition in list_crds():
        path = f"{collection_path(definition)}/{definition['metadata']['name']}"
        await client.delete(path)
        await wait_until(partial(is_gone, client, path), timeout_s=30)


async def is_gone(client: Client, path: str) -> bool:
    """Return whether nothing exists at a path."""
    try:
        await client.get(path)
    except ApiError as error:
        return error.status == 404
    return False
