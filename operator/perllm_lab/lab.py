"""The whole lab: control plane, simulated nodes, Prometheus, the operator and its kube-scheduler, each a process.

Everything uses one folder and the loopback interface, and ends with the lab, however that ends. A lab that starts in
the folder of an earlier one resumes with its objects and its learned state.
"""

import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import yaml

from perllm.api import names
from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm.extender.scheduler import scheduler_configuration
from perllm.telemetry.settings import TelemetrySettings
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.installation import OPERATOR_USER, SCHEDULER_USER, install
from perllm_lab.kubernetes.control_plane import ControlPlane, has_data
from perllm_lab.kubernetes.ports import find_free_ports
from perllm_lab.kubernetes.probe import answers
from perllm_lab.kubernetes.process import Process
from perllm_lab.kubernetes.prometheus import Prometheus, ScrapeTarget
from perllm_lab.nodes.agents import NAMESPACE as AGENT_NAMESPACE
from perllm_lab.nodes.registration import NODES

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "prometheus")
START_TIMEOUT_S = 180.0
LOOPBACK = "127.0.0.1"
CONTROL_PLANE = "kubernetes"
OPERATOR_LOG = "operator.log"
OPERATOR_CONFIG = "operator.yaml"
JOURNAL = "decisions.jsonl"


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Settings of a lab.

    Attributes:
        scenario_name: name of a scenario, or a YAML file.
        speed: simulated seconds per real second.
        seed: of the random numbers of the simulated hardware.
        scrape_interval_s: of Prometheus, in real seconds.
        operator_config: settings of the operator in addition to those that the lab needs; they win.
        flags: additional command line flags of the control plane's components, by name.
        records: whether the operator records what its decisions depend on.
        has_agents: whether every node has an agent, so that served tasks can be answered; then its model is loaded from
            the start, as where a model server is up.
    """

    scenario_name: str = "modern"
    speed: float = 1.0
    seed: int = 0
    scrape_interval_s: float = 1.0
    operator_config: Mapping[str, Any] | None = None
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    records: bool = False
    has_agents: bool = False

    @property
    def has_queues(self) -> bool:
        """Whether tasks may be in queues of Kueue."""
        return bool((self.operator_config or {}).get("kueue", {}).get("enabled"))

    @property
    def is_shadow(self) -> bool:
        """Whether the operator only watches what the default kube-scheduler does."""
        return (self.operator_config or {}).get("mode") == "shadow"


class Lab:
    """A running lab; use as an asynchronous context manager.

    Args:
        binaries: programs by name, as the toolchain provides them.
        scenario: its nodes.
        folder: used by this lab only; it resumes what an earlier run left there.
        settings: of the lab.
    """

    def __init__(self, binaries: Mapping[str, Path], scenario: Scenario, folder: Path, settings: LabSettings) -> None:
        self.scenario = scenario
        self.folder = folder
        self.settings = settings
        self.control_plane = ControlPlane(binaries, folder / CONTROL_PLANE, flags=settings.flags)
        self._nodes_port, self._extender_port, self._health_port = find_free_ports(3)
        self.prometheus = Prometheus(
            binaries["prometheus"],
            folder / "prometheus",
            self._scrape_targets(),
            scrape_interval_s=settings.scrape_interval_s,
        )
        self._stack = AsyncExitStack()
        self.operator: Process
        self.nodes: Process
        self.agents: Process
        self.client: Client

    @property
    def truth_file(self) -> Path:
        """Where the simulated nodes write the ground truth, one JSON object per line."""
        return self.folder / "truth.jsonl"

    @property
    def operator_log(self) -> Path:
        """The operator's log, one JSON object per line."""
        return self.folder / OPERATOR_LOG

    @property
    def operator_config(self) -> Path:
        """The operator's configuration file."""
        return self.folder / OPERATOR_CONFIG

    @property
    def journal(self) -> Path:
        """Where the operator records what its decisions depend on, if it does; a restart begins it again."""
        return self.folder / JOURNAL

    @property
    def processes(self) -> list[Process]:
        """All processes of a lab that has started."""
        agents = [self.agents] if self.settings.has_agents else []
        return [self.operator, *agents, self.nodes, self.prometheus.process, *self.control_plane.processes.values()]

    @property
    def health_url(self) -> str:
        """Base URL of the operator's /healthz, /readyz and /metrics."""
        return f"http://{LOOPBACK}:{self._health_port}"

    @property
    def nodes_url(self) -> str:
        """Base URL of the simulated nodes' server."""
        return f"http://{LOOPBACK}:{self._nodes_port}"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start_operator(self) -> None:
        """Start the operator, or start it again after it was stopped or killed, and wait until it is ready."""
        await self.operator.start()
        await self.operator.wait_until(lambda: answers(f"{self.health_url}/readyz"), timeout_s=START_TIMEOUT_S)

    async def start_nodes(self) -> None:
        """Start the simulated nodes and wait until they are registered."""
        await self.nodes.start()
        await self.nodes.wait_until(lambda: answers(f"{self.nodes_url}/healthz"), timeout_s=START_TIMEOUT_S)

    async def restart_nodes(self) -> None:
        """Restart the simulated hardware: no model loaded, the same random numbers."""
        await self.nodes.stop()
        await self.start_nodes()

    def truth_size(self) -> int:
        """Return the size of the ground truth in bytes, as a position to read from later."""
        return self.truth_file.stat().st_size if self.truth_file.exists() else 0

    def read_truth(self, start: int = 0) -> list[dict[str, Any]]:
        """Return the lines of ground truth from `start` on."""
        with self.truth_file.open("rb") as file:
            file.seek(start)
            return [orjson.loads(line) for line in file]

    async def _start(self) -> None:
        await self._stack.enter_async_context(self.control_plane)
        credentials = load_credentials(self.control_plane.admin_kubeconfig)
        self.client = await self._stack.enter_async_context(Client(credentials, max_connections=64))
        config = self.settings.operator_config or {}
        await install(
            self.client,
            config.get("namespaces", ()),
            has_agents=self.settings.has_agents,
            has_queues=self.settings.has_queues,
            has_devices="devices" in config.get("nodes", {}),
            is_shadow=self.settings.is_shadow,
        )
        await _remove_nodes_except(self.client, {node.name for node in self.scenario.nodes()})
        self.nodes = self._build_nodes()
        self._stack.push_async_callback(self.nodes.stop)
        await self.start_nodes()
        await self._stack.enter_async_context(self.prometheus)
        self.operator = self._build_operator()
        self._stack.push_async_callback(self.operator.stop)
        await self.start_operator()
        if self.settings.has_agents:
            self.agents = self.build_agents()
            self._stack.push_async_callback(self.agents.stop)
            await self.agents.start()
            await self.agents.wait_until(self.serves_all, timeout_s=START_TIMEOUT_S)
        if self.settings.is_shadow:
            return
        configuration = scheduler_configuration(f"http://{LOOPBACK}:{self._extender_port}")
        await self.control_plane.start_scheduler("perllm-scheduler", configuration, user=SCHEDULER_USER)

    async def serves_all(self) -> bool:
        """Return whether the model servers of all nodes take requests."""
        listing = await self.client.get(names.node_servers_path())
        ready = [item for item in listing["items"] if (item.get("status") or {}).get("ready") == "1/1"]
        return len(ready) >= len(self.scenario.nodes())

    def _build_nodes(self) -> Process:
        settings = self.settings
        arguments = {
            "--kubeconfig": self.control_plane.admin_kubeconfig,
            "--scenario": settings.scenario_name,
            "--speed": settings.speed,
            "--seed": settings.seed,
            "--port": self._nodes_port,
            "--truth": self.truth_file,
        }
        argv = [sys.executable, "-m", "perllm_lab.nodes", *(str(part) for pair in arguments.items() for part in pair)]
        if settings.has_agents:
            argv.append("--resident")
        return Process("nodes", argv, log_file=self.folder / "nodes.log")

    def build_agents(self, environment: Mapping[str, str] | None = None) -> Process:
        """Return the agents of all nodes as a process."""
        arguments = {
            "--kubeconfig": self.control_plane.admin_kubeconfig,
            "--scenario": self.settings.scenario_name,
            "--servers": self.nodes_url,
        }
        argv = [sys.executable, "-m", "perllm_lab.nodes.agents"]
        argv += [str(part) for pair in arguments.items() for part in pair]
        return Process("agents", argv, log_file=self.folder / "agents.log", environment=environment)

    def _build_operator(self) -> Process:
        config = {
            "telemetry": self._telemetry_config(),
            "server": {
                "extender_port": self._extender_port,
                "health_host": LOOPBACK,
                "health_port": self._health_port,
            },
            "log": {"format": "json"},
            "energy_patience_s": 20 * self.settings.scrape_interval_s,
            **({"agents": {"lease_namespace": AGENT_NAMESPACE}} if self.settings.has_agents else {}),
            **(self.settings.operator_config or {}),
        }
        options = ("--record", str(self.journal)) if self.settings.records else ()
        return build_operator(self.control_plane, self.folder, config, options)

    def _telemetry_config(self) -> dict[str, Any]:
        """Return the telemetry settings that fit the scrape interval and the speed."""
        interval_s, defaults = self.settings.scrape_interval_s, TelemetrySettings()
        return {
            "url": self.prometheus.url,
            "interval_s": interval_s,
            "stale_after_s": 6 * interval_s,
            "max_backoff_s": defaults.max_backoff_s / defaults.interval_s * interval_s,
            # Hardware that is `speed` times as fast draws `speed` times the power.
            "max_device_power_w": defaults.max_device_power_w * max(self.settings.speed, 1.0),
        }

    def _scrape_targets(self) -> list[ScrapeTarget]:
        address = f"{LOOPBACK}:{self._nodes_port}"
        return [
            ScrapeTarget("exporters", address, f"/nodes/{node.name}/exporters", node.name)
            for node in self.scenario.nodes()
        ]


def remove_lab(folder: Path) -> None:
    """Remove what an earlier lab has left in its folder. One without a lab is kept: its files are somebody else's."""
    if has_data(folder / CONTROL_PLANE):
        shutil.rmtree(folder, ignore_errors=True)


def build_operator(
    control_plane: ControlPlane, folder: Path, config: Mapping[str, Any], options: Sequence[str] = ()
) -> Process:
    """Return the operator as a process with its configuration and its log in `folder`."""
    file = folder / OPERATOR_CONFIG
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    kubeconfig = control_plane.write_kubeconfig(OPERATOR_USER)
    argv = [sys.executable, "-m", "perllm", "run", "--config", str(file), "--kubeconfig", str(kubeconfig)]
    return Process("operator", [*argv, *options], log_file=folder / OPERATOR_LOG)


async def _remove_nodes_except(client: Client, kept: Collection[str]) -> None:
    """Remove the nodes that a lab with another scenario left in this folder."""
    for item in (await client.get(NODES))["items"]:
        if item["metadata"]["name"] not in kept:
            await client.delete(f"{NODES}/{item['metadata']['name']}")
