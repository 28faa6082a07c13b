"""A real node of the cluster: kubelet and kube-proxy in a sandbox, so that pods bound to it really run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from perllm.cluster.client import ApiError, Client, PatchKind
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.process import Process
from realnode.containers import SOCKET_URL
from realnode.sandbox import Sandbox

PROGRAMS = ("kubelet", "kube-proxy")
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RealNodeSpec:
    """How the node appears in the cluster.

    Attributes:
        name: of the node.
        labels: of the node, in addition to those that kubelet sets.
        extended_resources: advertised as a device plugin would, such as `nvidia.com/gpu`.
        taint: key of a NoSchedule taint; none when empty.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    extended_resources: Mapping[str, int] = field(default_factory=dict)
    taint: str = ""


class RealNode:
    """kubelet and kube-proxy; the node is ready inside the `async with` block.

    Args:
        spec: how it appears in the cluster.
        binaries: programs by name, as `toolchain.provide` returns them.
        folder: used by this run only, for configuration and logs.
        sandbox: open, with containerd running in it.
        control_plane: ready, at an address that the sandbox can reach.
        client: of a cluster administrator.
    """

    def __init__(
        self,
        spec: RealNodeSpec,
        binaries: Mapping[str, Path],
        folder: Path,
        sandbox: Sandbox,
        control_plane: ControlPlane,
        client: Client,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._sandbox = sandbox
        self._control_plane = control_plane
        self._client = client
        self._processes = {
            "kubelet": Process(
                "kubelet",
                sandbox.wrap(binaries["kubelet"], *self._render_kubelet_arguments()),
                log_file=folder / "kubelet.log",
            ),
            "kube-proxy": Process(
                "kube-proxy",
                sandbox.wrap(binaries["kube-proxy"], *self._render_proxy_arguments()),
                log_file=folder / "kube-proxy.log",
            ),
        }

    @property
    def address(self) -> str:
        """The node's address."""
        return self._sandbox.network.node

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        pair = self._control_plane.write_server_pair(self.spec.name, self.spec.name, self.address)
        configuration = render_kubelet_configuration(
            self.address, self._control_plane.authority_file, pair, self._sandbox.cgroup
        )
        if self.spec.taint:
            configuration["registerWithTaints"] = [{"key": self.spec.taint, "effect": "NoSchedule"}]
        (self._folder / "kubelet.yaml").write_text(yaml.safe_dump(configuration))
        for process in self._processes.values():
            await process.start()
        await self._processes["kubelet"].wait_until(self._is_ready, timeout_s=_START_TIMEOUT_S)
        await self._advertise()

    async def _stop(self) -> None:
        for process in self._processes.values():
            await process.stop()

    async def _is_ready(self) -> bool:
        try:
            node = await self._client.get(f"/api/v1/nodes/{self.spec.name}")
        except ApiError:
            return False
        conditions = node["status"].get("conditions", ())
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    async def _advertise(self) -> None:
        amounts = {name: str(amount) for name, amount in self.spec.extended_resources.items()}
        status = {"status": {"capacity": amounts, "allocatable": amounts}}
        await self._client.patch(f"/api/v1/nodes/{self.spec.name}/status", status, kind=PatchKind.STRATEGIC)

    def _render_kubelet_arguments(self) -> tuple[str, ...]:
        kubeconfig = self._control_plane.write_kubeconfig(f"system:node:{self.spec.name}", "system:nodes")
        return (
            f"--config={self._folder / 'kubelet.yaml'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.spec.name}",
            f"--node-ip={self.address}",
            f"--node-labels={','.join(f'{key}={value}' for key, value in self.spec.labels.items())}",
        )

    def _render_proxy_arguments(self) -> tuple[str, ...]:
        kubeconfig = self._control_plane.write_kubeconfig("system:kube-proxy")
        return (
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.spec.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self._sandbox.network.pods}",
            # The limits of connection tracking are those of the whole machine.
            "--conntrack-max-per-core=0",
            "--oom-score-adj=0",
        )


def render_kubelet_configuration(address: str, authority: Path, pair: tuple[Path, Path], cgroup: str) -> dict[str, Any]:
    """Render a kubelet's configuration that leaves the rest of this machine alone."""
    certificate, key = pair
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority)}},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": SOCKET_URL,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Resources are neither reserved nor reclaimed: what else this machine runs must not affect the node.
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        # Without this pods would get the name server of this machine, which they cannot reach.
        "resolvConf": "",
    }
