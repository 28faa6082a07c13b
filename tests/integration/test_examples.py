"""The examples, as people apply them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.node import NodeLabels, read_node
from perllm.controller.pods import build_pod
from perllm.controller.task import read_task
from perllm.learning.priors import GENERIC, find_prior
from perllm_lab.kubernetes.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
NAMESPACE = "examples"
RESTRICTED = "examples-restricted"
UNRESTRICTED = {"hello", "quick", "urgent", "soon", "by-tonight"}
"""Tasks that are kept short; everything else must be fit for namespaces that enforce the restricted standard."""


class Kubectl:
    def __init__(self, plane: ControlPlane) -> None:
        self._argv = plane.kubectl_argv

    def __call__(self, *args: str, body: object = None) -> str:
        text = None if body is None else json.dumps(body)
        result = subprocess.run(
            (*self._argv, *args), input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def read(self, *args: str) -> Any:
        return json.loads(self("get", *args, "--output=json"))


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    kubectl = Kubectl(control_plane)
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    for namespace in (NAMESPACE, RESTRICTED):
        kubectl("create", "namespace", namespace)
        kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", namespace, "--timeout=30s")
    kubectl("create", "serviceaccount", "batch", "--namespace", RESTRICTED)
    kubectl("label", "namespace", RESTRICTED, "pod-security.kubernetes.io/enforce=restricted")
    yield kubectl
    kubectl("delete", "namespace", NAMESPACE, RESTRICTED, "--wait=false")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_applies_and_the_pods_of_its_tasks_are_accepted(kubectl: Kubectl, path: Path) -> None:
    kubectl("apply", "--validate=strict", "--namespace", NAMESPACE, "-f", str(path))

    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] != names.TASK_KIND:
            continue
        name = document["metadata"]["name"]
        task, _ = read_task(kubectl.read(names.TASK_SHORT_NAME, name, "--namespace", NAMESPACE), now_s=0.0)
        pod = build_pod(task, 1, names.SCHEDULER_NAME)
        pod["metadata"]["namespace"] = NAMESPACE if name in UNRESTRICTED else RESTRICTED
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", body=pod)


def test_labelled_nodes_are_known_with_their_published_figures(
    kubectl: Kubectl, control_plane: ControlPlane, binaries: dict[str, Path], tmp_path: Path
) -> None:
    tiers = {"jetson-1": Tier.EDGE, "t4-1": Tier.EDGE, "a100-1": Tier.CLOUD}
    for name in tiers:
        kubectl("create", "-f", "-", body={"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    discovered = f"{names.GPU_TYPE_LABEL}=NVIDIA-A100-SXM4-80GB"
    kubectl("label", "node", "a100-1", discovered)
    (tmp_path / "kubectl").symlink_to(binaries["kubectl"])
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(control_plane.admin_kubeconfig),
        "HOME": str(tmp_path),
    }

    subprocess.run([str(ROOT / "examples/label-nodes.sh")], env=environment, check=True, capture_output=True)

    nodes = {}
    for name in tiers:
        item = kubectl.read("node", name)
        item["status"]["allocatable"] = {names.GPU_RESOURCE: "4"}
        nodes[name] = read_node(item, NodeLabels())
    kubectl("delete", "node", *tiers)
    assert {name: node.tier for name, node in nodes.items() if node} == tiers
    assert all(find_prior(node.gpu_type) is not GENERIC for node in nodes.values() if node)
