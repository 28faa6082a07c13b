"""Command lines of the control plane's components."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from perllm_lab.kubernetes.certificates import Authority
from perllm_lab.kubernetes.ports import LOOPBACK

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

SERVICE_RANGE = "10.0.0.0/24"
# Kubernetes gives the Service `kubernetes`, through which pods reach the API server, the first address of the range.
_API_SERVICE = (str(next(ip_network(SERVICE_RANGE).hosts())), "kubernetes", "kubernetes.default.svc")
# There is one client of each kind, so the limits that protect a shared API server would only distort timings.
_CLIENT_QPS = 1000
_CLIENT_BURST = 2000


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """Files that the components share."""

    authority: Path
    server: tuple[Path, Path]
    service_account_key: Path
    etcd_authority: Path
    etcd: tuple[Path, Path]
    kubelet_client: tuple[Path, Path]

    @classmethod
    def write(cls, folder: Path, authority: Authority, address: str) -> "CredentialFiles":
        """Issue and write everything for an API server at this address.

        etcd gets an authority of its own: its clients bypass RBAC, which the users of the API server must not.
        """
        etcd_authority = Authority()
        service_account = authority.issue_client("service-account-issuer").write(folder, "service-account")
        return cls(
            authority=authority.write_certificate(folder / "ca.crt"),
            server=authority.issue_server(*{LOOPBACK, address}, "localhost", *_API_SERVICE).write(folder, "server"),
            service_account_key=service_account[1],
            etcd_authority=etcd_authority.write_certificate(folder / "etcd-ca.crt"),
            etcd=etcd_authority.issue_server(LOOPBACK).write(folder, "etcd"),
            kubelet_client=authority.issue_client("kubelet-client", "system:masters").write(folder, "kubelet-client"),
        )


@dataclass(frozen=True, slots=True)
class EtcdPorts:
    """TCP ports of etcd."""

    client: int
    peer: int
    health: int


def render_etcd(credentials: CredentialFiles, data_folder: Path, ports: EtcdPorts) -> tuple[str, ...]:
    """Render the arguments of etcd, which trades durability across power cuts for speed."""
    certificate, key = credentials.etcd
    client, peer = f"https://{LOOPBACK}:{ports.client}", f"https://{LOOPBACK}:{ports.peer}"
    return (
        "--name=lab",
        f"--data-dir={data_folder}",
        "--unsafe-no-fsync",
        # The only member waits for an election too before it serves. Heartbeats it needs none: the interval is the
        # longest that this timeout allows, since each takes processor time.
        "--heartbeat-interval=20",
        "--election-timeout=100",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        f"--listen-metrics-urls=http://{LOOPBACK}:{ports.health}",
        f"--trusted-ca-file={credentials.etcd_authority}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        "--client-cert-auth",
        f"--peer-trusted-ca-file={credentials.etcd_authority}",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        "--peer-client-cert-auth",
    )


def render_api_server(credentials: CredentialFiles, *, etcd_port: int, address: str, port: int) -> tuple[str, ...]:
    """Render the arguments of kube-apiserver: RBAC, client certificates and service account tokens."""
    certificate, key = credentials.etcd
    kubelet_certificate, kubelet_key = credentials.kubelet_client
    return (
        *_render_serving(credentials, port, address),
        f"--advertise-address={address}",
        # The endpoints of the Service `kubernetes` must not be loopback addresses; on loopback no real pod uses them.
        *(("--endpoint-reconciler-type=none",) if address == LOOPBACK else ()),
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--kubelet-client-certificate={kubelet_certificate}",
        f"--kubelet-client-key={kubelet_key}",
        f"--kubelet-certificate-authority={credentials.authority}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--etcd-servers=https://{LOOPBACK}:{etcd_port}",
        f"--etcd-cafile={credentials.etcd_authority}",
        f"--etcd-certfile={certificate}",
        f"--etcd-keyfile={key}",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={credentials.authority}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials.service_account_key}",
        f"--service-account-signing-key-file={credentials.service_account_key}",
        "--max-requests-inflight=4000",
        "--max-mutating-requests-inflight=2000",
        "--allow-privileged",
    )


def render_controller_manager(credentials: CredentialFiles, kubeconfig: Path, port: int) -> tuple[str, ...]:
    """Render the arguments of kube-controller-manager."""
    return (
        *_render_serving(credentials, port),
        *_render_client(kubeconfig),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={credentials.service_account_key}",
        f"--root-ca-file={credentials.authority}",
        f"--kube-api-qps={_CLIENT_QPS}",
        f"--kube-api-burst={_CLIENT_BURST}",
        "--leader-elect=false",
    )


def render_scheduler(credentials: CredentialFiles, kubeconfig: Path, port: int) -> tuple[str, ...]:
    """Render the arguments of the default kube-scheduler."""
    return (
        *_render_serving(credentials, port),
        *_render_client(kubeconfig),
        f"--kube-api-qps={_CLIENT_QPS}",
        f"--kube-api-burst={_CLIENT_BURST}",
        "--leader-elect=false",
    )


def render_configured_scheduler(
    credentials: CredentialFiles, kubeconfig: Path, configuration_file: Path, port: int
) -> tuple[str, ...]:
    """Render the arguments of a kube-scheduler with a configuration file."""
    return (*_render_serving(credentials, port), *_render_delegation(kubeconfig), f"--config={configuration_file}")


def complete_configuration(configuration: Mapping[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """Add the connection to the API server to a KubeSchedulerConfiguration; fields that are set win."""
    connection = {"kubeconfig": str(kubeconfig), "qps": _CLIENT_QPS, "burst": _CLIENT_BURST}
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        **configuration,
        "clientConnection": connection | dict(configuration.get("clientConnection", {})),
    }


def _render_serving(credentials: CredentialFiles, port: int, address: str = LOOPBACK) -> tuple[str, ...]:
    certificate, key = credentials.server
    return (
        f"--bind-address={address}",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
    )


def _render_client(kubeconfig: Path) -> tuple[str, ...]:
    return (f"--kubeconfig={kubeconfig}", *_render_delegation(kubeconfig))


def _render_delegation(kubeconfig: Path) -> tuple[str, ...]:
    # Benchmarks read the metrics of the components without a token.
    return (
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
    )
