"""A cluster with one real node, several simulated GPU nodes, Prometheus and a real LLM."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.ports import find_free_ports
from perllm_lab.kubernetes.process import Process
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget
from realnode.containers import Containers
from realnode.model_server.installation import Installation
from realnode.model_server.server import ModelServer
from realnode.node import RealNode, RealNodeSpec
from realnode.sandbox import Sandbox

SCENARIO = "modern"
SPEED = 3.0
SCRAPE_INTERVAL_S = 1.0
TAINT = "test.perllm.io/real"
# Pods of the simulated nodes have images that do not exist, so only pods that tolerate this run on the real node.
REAL_NODE = RealNodeSpec(
    name="real",
    labels={"perllm.io/tier": "edge", "nvidia.com/gpu.product": "Tesla-T4"},
    extended_resources={"nvidia.com/gpu": 4},
    taint=TAINT,
)
ON_REAL_NODE = {
    "nodeSelector": {"kubernetes.io/hostname": REAL_NODE.name},
    "tolerations": [{"key": TAINT, "operator": "Exists"}],
}


@dataclass(frozen=True, slots=True)
class RealCluster:
    """A running cluster."""

    control_plane: ControlPlane
    client: Client
    containers: Containers
    prometheus: Prometheus
    scenario: Scenario

    async def kubectl(self, *arguments: str) -> str:
        """Return what kubectl prints."""
        return await call(*self.control_plane.kubectl_argv, *arguments)


async def call(*argv: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a program prints; raise with its error output when it fails."""
    child = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    output, errors = await child.communicate()
    assert child.returncode == 0, f"{' '.join(argv)}: {errors.decode()}{output.decode()}"
    return output.decode()


@asynccontextmanager
async def open_cluster(
    binaries: Mapping[str, Path],
    images: list[Path],
    llm: Installation,
    scenario: Scenario,
    folder: Path,
) -> AsyncIterator[RealCluster]:
    """Start everything; all of it ends with the block."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(folder / "sandbox"))
        plane = ControlPlane(binaries, folder / "kubernetes", address=sandbox.network.host)
        containers = Containers(sandbox, folder / "containers")
        model_server = ModelServer(llm, sandbox, folder / "model-server.log")
        (port,) = find_free_ports(1)
        prometheus = Prometheus(
            binaries["prometheus"],
            folder / "prometheus",
            _scrape_targets(scenario, port),
            scrape_interval_s=SCRAPE_INTERVAL_S,
            address=sandbox.network.host,
        )
        await stack.enter_async_context(plane)
        await stack.enter_async_context(containers)
        client = await stack.enter_async_context(Client(load_credentials(plane.admin_kubeconfig), max_connections=64))
        nodes = _simulated_nodes(plane, port, folder)
        stack.push_async_callback(nodes.stop)
        await nodes.start()
        for image in images:
            await containers.load(image)
        node = RealNode(REAL_NODE, binaries, folder / "node", sandbox, plane, client)
        for part in (prometheus, model_server, node):
            await stack.enter_async_context(part)
        yield RealCluster(plane, client, containers, prometheus, scenario)


def _simulated_nodes(plane: ControlPlane, port: int, folder: Path) -> Process:
    options = {
        "--kubeconfig": plane.admin_kubeconfig,
        "--scenario": SCENARIO,
        "--speed": SPEED,
        "--port": port,
        "--truth": folder / "truth.jsonl",
    }
    argv = [sys.executable, "-m", "perllm_lab.nodes", *(str(word) for option in options.items() for word in option)]
    return Process("nodes", argv, log_file=folder / "nodes.log")


def _scrape_targets(scenario: Scenario, port: int) -> list[ScrapeTarget]:
    return [
        ScrapeTarget("exporters", f"127.0.0.1:{port}", f"/nodes/{node.name}/exporters", node.name)
        for node in scenario.nodes()
    ]
