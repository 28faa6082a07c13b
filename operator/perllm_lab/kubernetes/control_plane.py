"""A real Kubernetes control plane as child processes, on the loopback interface unless pods must reach it."""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from perllm_lab.kubernetes import components
from perllm_lab.kubernetes.certificates import Authority, Kubeconfig, write_secret
from perllm_lab.kubernetes.components import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.process import GO_ENVIRONMENT, Process, ProcessError

_DATA = "etcd"
_START_TIMEOUT_S = 180.0
_REQUEST_TIMEOUT_S = 5.0
# An API server with open watches would wait for them, and its data is not needed any more.
_STOP_GRACE_S = 3.0


class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler; ready inside the `async with` block.

    Args:
        binaries: programs by component name, as `toolchain.provide` returns them.
        folder: used by this run only, for data, certificates, kubeconfigs and logs.
        flags: additional command line flags by component name; of two with the same name the later wins.
        address: address that the API server listens on; real pods need one that they can reach.
    """

    def __init__(
        self,
        binaries: Mapping[str, Path],
        folder: Path,
        *,
        flags: Mapping[str, Sequence[str]] | None = None,
        address: str = LOOPBACK,
    ) -> None:
        self.folder = folder
        self.url = ""
        self._binaries = binaries
        self._flags = flags or {}
        self._address = address
        self._authority = Authority()
        self._credentials: components.CredentialFiles
        self._processes: dict[str, Process] = {}
        self._health: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    @property
    def admin_kubeconfig(self) -> Path:
        """Kubeconfig of a cluster administrator."""
        return self.folder / "kubeconfigs" / "admin.yaml"

    @property
    def authority_file(self) -> Path:
        """Certificate of the authority that signed all certificates of the API server and its users."""
        return self.folder / "certificates" / "ca.crt"

    @property
    def has_data(self) -> bool:
        """Whether an earlier run left objects in this folder, which are there again after a start."""
        return has_data(self.folder)

    @property
    def kubectl_argv(self) -> tuple[str, ...]:
        """Start of a kubectl command line as admin."""
        return (str(self._binaries["kubectl"]), "--kubeconfig", str(self.admin_kubeconfig))

    @property
    def processes(self) -> Mapping[str, Process]:
        """All components by name in the order in which they start."""
        return self._processes

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait_ready(self, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until every component is ready and pods can be created.

        Raises:
            ProcessError: a component ended or is not ready in time; the message quotes the end of its log.
        """
        await asyncio.gather(*(self._wait(name, timeout_s) for name in self._processes))
        # Pods are denied until the controller manager has created the service account that they run as.
        account = f"{self.url}/api/v1/namespaces/default/serviceaccounts/default"
        manager = self._processes[CONTROLLER_MANAGER]
        await manager.wait_until(lambda: self._answers(account), timeout_s=timeout_s)

    async def start_component(self, name: str, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Start a stopped or killed component on the port that it had, and wait until it is ready."""
        await self._processes[name].start()
        await self._wait(name, timeout_s)

    async def stop_component(self, name: str) -> None:
        """Stop a component as an orderly shutdown would."""
        await self._processes[name].stop()

    async def kill_component(self, name: str) -> None:
        """End a component as a crash would."""
        await self._processes[name].kill()

    async def start_scheduler(
        self,
        name: str,
        configuration: Mapping[str, Any],
        *,
        user: str = "system:kube-scheduler",
        prefix: Sequence[str] = (),
    ) -> None:
        """Start an additional kube-scheduler and wait until it is ready.

        Args:
            name: of this component; must not be in use.
            configuration: KubeSchedulerConfiguration; fields that it omits are filled in for this cluster.
            user: that it authenticates as; any other than the default needs RBAC rules first.
            prefix: command line that the scheduler's own is appended to, such as that of `strace`.

        Raises:
            ProcessError: the name is taken, or the scheduler ended or is not ready in time.
        """
        if name in self._processes:
            raise ProcessError(f"A component {name} exists already; choose another name.")
        kubeconfig = self.write_kubeconfig(user)
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(components.complete_configuration(configuration, kubeconfig)))
        (port,) = find_free_ports(1)
        argv = components.render_configured_scheduler(self._credentials, kubeconfig, file, port)
        self._add(name, SCHEDULER, argv, f"https://{LOOPBACK}:{port}/readyz", prefix)
        await self.start_component(name)

    def write_kubeconfig(self, user: str, group: str | None = None) -> Path:
        """Write the kubeconfig of a user with a client certificate of its own; only its owner may read the file."""
        file = self.folder / "kubeconfigs" / f"{user.replace(':', '-').replace('/', '-')}.yaml"
        content = Kubeconfig.issue(self.url, self._authority, user, group).render()
        write_secret(file, yaml.safe_dump(content).encode())
        return file

    def write_server_pair(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Write a certificate for host names and addresses, and its key, signed by this cluster's authority."""
        return self._authority.issue_server(*hosts).write(self.folder / "certificates", name)

    async def stop(self) -> None:
        """Stop everything, clients before servers."""
        clients = [process for name, process in self._processes.items() if name not in (ETCD, API_SERVER)]
        await asyncio.gather(*(process.stop(grace_s=_STOP_GRACE_S) for process in clients))
        for name in (API_SERVER, ETCD):
            if name in self._processes:
                await self._processes[name].stop(grace_s=_STOP_GRACE_S)
        if self._session is not None:
            await self._session.close()

    async def _start(self) -> None:
        self._prepare()
        self._session = self._open_session()
        # In order: a client whose first connection fails waits a second before it retries.
        await self.start_component(ETCD)
        await self.start_component(API_SERVER)
        await self._processes[CONTROLLER_MANAGER].start()
        await self._processes[SCHEDULER].start()
        await self.wait_ready()

    def _prepare(self) -> None:
        for part in ("certificates", "kubeconfigs", "logs"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        client, peer, health, api_server, manager, scheduler = find_free_ports(6)
        self.url = f"https://{self._address}:{api_server}"
        folder = self.folder / "certificates"
        shared = self._credentials = components.CredentialFiles.write(folder, self._authority, self._address)
        self.write_kubeconfig("admin", "system:masters")
        argv = components.render_etcd(shared, self.folder / _DATA, components.EtcdPorts(client, peer, health))
        self._add(ETCD, ETCD, argv, f"http://{LOOPBACK}:{health}/health")
        argv = components.render_api_server(shared, etcd_port=client, address=self._address, port=api_server)
        self._add(API_SERVER, API_SERVER, argv, f"{self.url}/readyz")
        argv = components.render_controller_manager(
            shared, self.write_kubeconfig(f"system:{CONTROLLER_MANAGER}"), manager
        )
        self._add(CONTROLLER_MANAGER, CONTROLLER_MANAGER, argv, f"https://{LOOPBACK}:{manager}/healthz")
        argv = components.render_scheduler(shared, self.write_kubeconfig(f"system:{SCHEDULER}"), scheduler)
        self._add(SCHEDULER, SCHEDULER, argv, f"https://{LOOPBACK}:{scheduler}/readyz")

    def _add(self, name: str, program: str, argv: Sequence[str], health_url: str, prefix: Sequence[str] = ()) -> None:
        line = (*prefix, str(self._binaries[program]), *argv, *self._flags.get(name, ()))
        log_file = self.folder / "logs" / f"{name}.log"
        self._processes[name] = Process(name, line, log_file=log_file, environment=GO_ENVIRONMENT | os.environ)
        self._health[name] = health_url

    def _open_session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.authority_file))
        context.load_cert_chain(
            *self._authority.issue_client("admin", "system:masters").write(self.folder / "certificates", "admin")
        )
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout)

    async def _wait(self, name: str, timeout_s: float) -> None:
        await self._processes[name].wait_until(lambda: self._answers(self._health[name]), timeout_s=timeout_s)

    async def _answers(self, url: str) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


def has_data(folder: Path) -> bool:
    """Whether a control plane has left objects in its folder."""
    return (folder / _DATA).exists()
