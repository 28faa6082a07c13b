"""The pod that sends a served task to the model server of its node, where no agent does.

Everything in it but the prompt, which is data in environment variables, is the platform's choice: so the author of a
task needs no right to create pods for it.
"""

from collections.abc import Mapping
from typing import Any

from perllm.api.prompt_variables import write_variables
from perllm.api.task import TaskSpec
from perllm.cluster.node import Node
from perllm.placement.fitting import is_passing
from perllm.settings.tasks import RunnerSettings

CONTAINER = "runner"
MIN_TIMEOUT_S = 600.0
"""Seconds that an answer may take at least, even if the deadline is sooner."""


class RunnerPods:
    """Makes the templates of runner pods.

    Args:
        settings: what they have in common.
        nodes: the fleet, by name.
    """

    def __init__(self, settings: RunnerSettings, nodes: Mapping[str, Node]) -> None:
        self._settings = settings
        self._nodes = nodes

    def build_template(self, spec: TaskSpec, node: str | None) -> dict[str, Any]:
        """Return the template of the pod for a served task; it asks for the resource that this node has."""
        return {
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "tolerations": self._build_tolerations(),
                "containers": [self._build_container(spec, self._find_slot(node))],
            }
        }

    def _find_slot(self, node: str | None) -> dict[str, str]:
        """Return the limit by which a pod gets a slot of a node; none where slots are no resource, or claimed."""
        known = self._nodes.get(node or "")
        if known is None or not known.main_resource or known.main_resource in known.claimed:
            return {}
        return {known.main_resource: "1"}

    def _build_container(self, spec: TaskSpec, slot: dict[str, str]) -> dict[str, Any]:
        settings, variables = self._settings, write_variables(spec.conversations[0], spec.to_generation())
        resources = settings.resources
        timeout_s = max(spec.deadline_s, MIN_TIMEOUT_S)
        return {
            "name": CONTAINER,
            "image": settings.image,
            "command": ["perllm-runner"],
            "args": [f"--model={spec.model}", "--prompt-from-env", f"--timeout={timeout_s:g}", "--quiet"],
            "env": [
                {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "PERLLM_URL", "value": settings.server_url},
                *({"name": name, "value": value} for name, value in variables.items()),
            ],
            "resources": {"requests": dict(resources.requests), "limits": {**resources.limits, **slot}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }

    def _build_tolerations(self) -> list[dict[str, str]]:
        """Return tolerations of the taints that last; those that show a node's state repel pods, as they should."""
        taints = (taint for node in self._nodes.values() for taint in node.taints if not is_passing(taint))
        kinds = sorted({(taint.key, taint.effect) for taint in taints})
        return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in kinds]
