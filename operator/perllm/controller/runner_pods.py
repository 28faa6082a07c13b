"""The pod that sends a served task to the model server of its node, where no agent does.

Everything in it but the prompt, which is data in environment variables, is the platform's choice: so the author of a
task needs no right to create pods for it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perllm.api.prompt_variables import write_variables
from perllm.api.task import TaskSpec
from perllm.cluster.node import Node
from perllm.placement.fitting import is_passing

CONTAINER = "runner"
MIN_TIMEOUT_S = 600.0
"""Seconds that an answer may take at least, even if the deadline is sooner."""


@dataclass(frozen=True, slots=True)
class RunnerShape:
    """What all runner pods have in common.

    Attributes:
        image: image with `perllm-runner`.
        server_url: base URL of the node's model server; $(NODE_IP) stands for the node's address.
        requests: requested resources.
        limits: limits of resources.
        gpu_resource: resource of which it takes one unit, its slot.
    """

    image: str
    server_url: str
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    gpu_resource: str


class RunnerPods:
    """Makes the templates of runner pods.

    Args:
        shape: what they have in common.
        list_nodes: returns the nodes of the fleet.
    """

    def __init__(self, shape: RunnerShape, list_nodes: Callable[[], Iterable[Node]]) -> None:
        self._shape = shape
        self._list_nodes = list_nodes

    def build_template(self, spec: TaskSpec) -> dict[str, Any]:
        """Return the template of the pod for a served task."""
        return {
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "tolerations": self._build_tolerations(),
                "containers": [self._build_container(spec)],
            }
        }

    def _build_container(self, spec: TaskSpec) -> dict[str, Any]:
        shape, variables = self._shape, write_variables(spec.conversation, spec.to_generation())
        timeout_s = max(spec.deadline_s, MIN_TIMEOUT_S)
        return {
            "name": CONTAINER,
            "image": shape.image,
            "command": ["perllm-runner"],
            "args": [f"--model={spec.model}", "--prompt-from-env", f"--timeout={timeout_s:g}", "--quiet"],
            "env": [
                {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "PERLLM_URL", "value": shape.server_url},
                *({"name": name, "value": value} for name, value in variables.items()),
            ],
            "resources": {"requests": dict(shape.requests), "limits": {**shape.limits, shape.gpu_resource: "1"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }

    def _build_tolerations(self) -> list[dict[str, str]]:
        """Return tolerations of the taints that last; those that show a node's state keep pods off, as they should."""
        taints = (taint for node in self._list_nodes() for taint in node.taints if not is_passing(taint))
        kinds = sorted({(taint.key, taint.effect) for taint in taints})
        return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in kinds]
