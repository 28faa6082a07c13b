"""Releases of the chart, as helm installs them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.real.cluster import ON_REAL_NODE, SCRAPE_INTERVAL_S, SPEED, RealCluster, call
from perllm.cluster.client import Object

CHART = Path(__file__).parents[3] / "charts" / "perllm"
APP_VERSION = str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])
# The image of the examples, which is in no registry.
IMAGE = "registry.example.com/perllm/perllm"
# Nothing has been released yet, so the current chart and image under this version stand in for the previous release.
PREVIOUS_VERSION = "0.0.9"
READY_TIMEOUT = "90s"


@dataclass(frozen=True, slots=True)
class Helm:
    """Helm, which writes only into a folder of its own."""

    binary: Path
    folder: Path
    cluster: RealCluster

    async def run(self, *arguments: str) -> str:
        """Return what helm prints."""
        homes = {f"HELM_{kind}_HOME": str(self.folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        kubeconfig = ("--kubeconfig", str(self.cluster.control_plane.admin_kubeconfig))
        return await call(str(self.binary), *arguments, *kubeconfig, environment={**os.environ, **homes})

    async def package(self, version: str) -> Path:
        """Package the chart as another version of chart and image."""
        await self.run("package", str(CHART), "--version", version, "--app-version", version, "-d", str(self.folder))
        return self.folder / f"perllm-{version}.tgz"


@dataclass(frozen=True, slots=True)
class Release:
    """One release in a namespace that exists."""

    helm: Helm
    name: str
    namespace: str

    async def install(self, chart: Path = CHART, *, config: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Install it, or upgrade it, and wait until both containers are ready."""
        file = self.helm.folder / f"{self.name}.yaml"
        own = {"image": {"repository": IMAGE}, "config": self._config() | dict(config or {})}
        file.write_text(yaml.safe_dump({**own, **ON_REAL_NODE, **values}))
        place = ("--namespace", self.namespace, "--values", str(file))
        try:
            await self.helm.run(
                "upgrade", "--install", self.name, str(chart), *place, "--wait", "--timeout", READY_TIMEOUT
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self._describe()}") from None

    async def uninstall(self) -> None:
        """Uninstall it and wait until its objects are gone."""
        await self.helm.run("uninstall", self.name, "--namespace", self.namespace, "--wait", "--timeout", READY_TIMEOUT)

    async def decided(self) -> set[str]:
        """Return the tasks, as namespace/name, whose decisions are in the operator's log."""
        lines = [json.loads(line) for line in (await self.read_log()).splitlines() if line.startswith("{")]
        return {line["task"] for line in lines if line.get("event") == "decision"}

    async def read_log(self, container: str = "operator") -> str:
        """Return the log of a container, after that of its last predecessor if it was started again."""
        found = []
        for pod in await self.pods():
            (status,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == container)
            place = (f"pod/{pod['metadata']['name']}", "--namespace", self.namespace, "--container", container)
            if status["restartCount"]:
                found.append(await self.helm.cluster.kubectl("logs", *place, "--previous"))
            found.append(await self.helm.cluster.kubectl("logs", *place))
        return "\n".join(found)

    async def pods(self) -> list[Object]:
        """Return its pods except those that are terminating."""
        listing = await self.helm.cluster.client.get(
            f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=f"app.kubernetes.io/instance={self.name}"
        )
        return [pod for pod in listing["items"] if "deletionTimestamp" not in pod["metadata"]]

    async def _describe(self) -> str:
        """Return what helps to find out why it is not ready."""
        kubectl, place = self.helm.cluster.kubectl, ("--namespace", self.namespace)
        logs = ("logs", f"deploy/{self.name}", *place, "--all-containers", "--prefix", "--tail=20", "--ignore-errors")
        return "\n".join([await kubectl("describe", "pods", *place), await kubectl(*logs)])

    def _config(self) -> dict[str, Any]:
        telemetry = {
            "url": self.helm.cluster.prometheus.url,
            "interval_s": SCRAPE_INTERVAL_S,
            "stale_after_s": 6 * SCRAPE_INTERVAL_S,
            # Hardware that is `SPEED` times as fast draws `SPEED` times the power.
            "max_device_power_w": 2000.0 * SPEED,
        }
        return {
            "telemetry": telemetry,
            "energy_patience_s": 20 * SCRAPE_INTERVAL_S,
            "log": {"format": "json"},
        }


async def make_namespace(cluster: RealCluster, name: str, *, restricted: bool = False) -> None:
    """Create a namespace, if wanted with the Pod Security Standard `restricted` enforced."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    await cluster.client.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
