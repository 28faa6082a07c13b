"""containerd and runc on the real node."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from perllm_lab.kubernetes.process import Process, ProcessError
from realnode.network import NodeNetwork
from realnode.overlay import supports_overlay
from realnode.requirements import find_network_plugins
from realnode.sandbox import Sandbox

PAUSE_IMAGE = "perllm.io/lab/pause:1.0"
_SOCKET = "/run/containerd/containerd.sock"
SOCKET_URL = f"unix://{_SOCKET}"
_START_TIMEOUT_S = 30.0
_CONFIGURATION = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  # Needed without CAP_SYS_RESOURCE, for example inside a container: priorities cannot be raised then.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
"""


class Containers:
    """containerd inside a sandbox; ready inside the `async with` block.

    Args:
        sandbox: open.
        folder: used by this run only, for configuration and log.
    """

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._snapshotter = ""
        argv = sandbox.wrap("containerd", "--config", folder / "containerd.toml")
        self._process = Process("containerd", argv, log_file=folder / "containerd.log")

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._process.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._process.stop()

    async def load(self, archive: Path) -> None:
        """Load an image from a Docker or OCI archive.

        Raises:
            ProcessError: containerd rejects it.
        """
        await self._ctr("images", "import", "--snapshotter", self._snapshotter, str(archive))

    async def tag(self, name: str, other: str) -> None:
        """Add a name to an image; both are full names with a tag."""
        await self._ctr("images", "tag", name, other)

    async def _start(self) -> None:
        plugins, networks = find_network_plugins(), self._folder / "networks"
        if plugins is None:
            raise ProcessError("The network plugins of containers are missing; install containernetworking-plugins.")
        networks.mkdir(parents=True, exist_ok=True)
        # Copying layers works on every file system, but each container waits for its copy.
        self._snapshotter = "overlayfs" if await supports_overlay(self._folder) else "native"
        (networks / "lab.conflist").write_text(json.dumps(render_pod_network(self._sandbox.network)))
        configuration = _CONFIGURATION.format(
            pause_image=PAUSE_IMAGE, snapshotter=self._snapshotter, plugins=plugins, networks=networks
        )
        (self._folder / "containerd.toml").write_text(configuration)
        await self._process.start()
        await self._process.wait_until(self._answers, timeout_s=_START_TIMEOUT_S)

    async def _answers(self) -> bool:
        try:
            await self._ctr("version")
        except ProcessError:
            return False
        return True

    async def _ctr(self, *arguments: str) -> None:
        await self._sandbox.run("ctr", "--address", _SOCKET, "--namespace", "k8s.io", *arguments)


def render_pod_network(network: NodeNetwork) -> Mapping[str, Any]:
    """Render the CNI configuration: a bridge with one address per pod."""
    return {
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(network.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
