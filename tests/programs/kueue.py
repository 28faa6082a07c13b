"""Kueue as its own manifests install it on a control plane, with a process here in place of its Deployment."""

import asyncio
import json
import os
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from perllm.cluster.client import Client, Object
from perllm_lab.kubernetes.build import run
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.golang import find_go
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.probe import answers
from perllm_lab.kubernetes.process import Process
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from programs.modules import list_test_modules

NAMESPACE = "kueue-system"
CONFIGURATION = "controller_manager_config.yaml"
CERTIFICATE = f"/api/v1/namespaces/{NAMESPACE}/secrets/kueue-webhook-server-cert"
START_TIMEOUT_S = 120.0


async def start_kueue(plane: ControlPlane, client: Client, folder: Path) -> Process:
    """Install Kueue and start its manager; it is built the first time on a machine, in minutes.

    Args:
        plane: the control plane.
        client: its API server.
        folder: for its files.
    """
    programs = await provide(["kueue"], cache_folder=default_cache_folder(), more_modules=list_test_modules())
    health_port, webhook_port = find_free_ports(2)
    manifests = await _render(plane)
    installed = _write(folder / "installed.yaml", _redirect(manifests, webhook_port))
    await _call(*plane.kubectl_argv, "apply", "--server-side", f"--filename={installed}")
    await _call(*plane.kubectl_argv, "wait", "--for=condition=Established", "crds", "--all")
    configuration = _write(folder / CONFIGURATION, [_configure(manifests, health_port, webhook_port, folder)])
    process = Process(
        "kueue",
        [programs["kueue"], f"--config={configuration}"],
        log_file=folder / "kueue.log",
        environment={**os.environ, "KUBECONFIG": str(plane.admin_kubeconfig)},
    )
    try:
        await _start(process, client, folder, f"http://{LOOPBACK}:{health_port}/readyz")
    except BaseException:
        await process.stop()
        raise
    return process


async def _render(plane: ControlPlane) -> list[Object]:
    """Return the manifests that come with the Go module."""
    (module,) = [one for one in list_test_modules() if one.name == "kueue"]
    go = await find_go(module, default_cache_folder(), lambda progress: None)
    arguments = ("mod", "download", "-json", "sigs.k8s.io/kueue")
    found = await _call(str(go.executable), *arguments, environment=go.environment, folder=module.folder)
    rendered = await _call(*plane.kubectl_argv, "kustomize", f"{json.loads(found)['Dir']}/config/default")
    return list(yaml.load_all(rendered, Loader=yaml.CSafeLoader))


def _redirect(manifests: Sequence[Object], port: int) -> list[Object]:
    """Return what the API server needs, with webhooks that it finds on this machine instead of in a pod."""
    kept = {"Namespace", "Secret", "CustomResourceDefinition"}
    found = [one for one in manifests if one["kind"] in kept or one["kind"].endswith("WebhookConfiguration")]
    services = []
    for one in found:
        conversion = one.get("spec", {}).get("conversion", {}).get("webhook")
        for webhook in [*one.get("webhooks", ()), *([conversion] if conversion else ())]:
            webhook["clientConfig"]["service"]["port"] = port
            services.append(webhook["clientConfig"]["service"]["name"])
    # The API server trusts the name of the Service, for which Kueue issues its certificate, and follows it to its host.
    spec = {"type": "ExternalName", "externalName": "localhost"}
    metadata = {"name": services[0], "namespace": NAMESPACE}
    return [*found, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}]


def _configure(manifests: Sequence[Object], health_port: int, webhook_port: int, folder: Path) -> Object:
    """Return the configuration that comes with the manifests, for one process with addresses of its own."""
    (text,) = [one["data"][CONFIGURATION] for one in manifests if CONFIGURATION in one.get("data", {})]
    configuration: dict[str, Any] = yaml.safe_load(text)
    return configuration | {
        "health": {"healthProbeBindAddress": f"{LOOPBACK}:{health_port}"},
        "webhook": {"host": LOOPBACK, "port": webhook_port, "certDir": str(folder)},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False},
        # Its certificates would lie in the root of the file system.
        "featureGates": {"VisibilityOnDemand": False},
    }


async def _start(process: Process, client: Client, folder: Path, url: str) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not await answers(url):
            # It ends if discovery does not show its resources yet; its Deployment would start it again.
            await process.start()
            _mount(await client.get(CERTIFICATE), folder)
            await asyncio.sleep(0.2)


def _mount(secret: Object, folder: Path) -> None:
    """Write the certificate that Kueue issues to where kubelet would mount its Secret."""
    for name, content in secret.get("data", {}).items():
        if not (folder / name).exists():
            (folder / name).write_bytes(b64decode(content))


async def _call(*argv: str, environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> str:
    lines: list[str] = []
    code = await run(argv, lines.append, environment, folder)
    assert code == 0, lines[-10:]
    return "\n".join(lines)


def _write(file: Path, documents: Iterable[Object]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper))
    return file
