"""An operator that serves some namespaces only, checked against the API server's audit log."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.stage import wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.rbac import node_rules, task_rules
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.trace_replay import FINAL_PHASES
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request

SERVED, OTHER = "served", "other"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR_USER]}, {"level": "None"}],
}

Use = tuple[str, str, str]
"""(API group, resource with its subresource, verb)"""


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def lab_settings(audit_log: Path) -> LabSettings:
    policy = audit_log.parent / "policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={audit_log}", "--audit-log-mode=blocking-strict"]
    return LabSettings("modern", 3.0, operator_config={"namespaces": [SERVED]}, flags={"kube-apiserver": flags})


async def test_only_the_namespaces_it_serves_are_touched_and_every_right_is_used(lab: Lab, audit_log: Path) -> None:
    await lab.client.post("/api/v1/namespaces", {"metadata": {"name": OTHER}})
    for namespace in (SERVED, OTHER):
        await _create(lab, namespace, "short", output_tokens=60)
    await _create(lab, SERVED, "long", output_tokens=20_000, deadline="10s", onDeadlineMissed="Terminate")
    await _create(lab, SERVED, "old", output_tokens=20, ttlAfterFinished="1s")
    await wait_until(lambda: _is_done(lab), timeout_s=60)
    await wait_until(lambda: _has_learned(lab), timeout_s=60)

    assert "status" not in await lab.client.get(names.task_path(OTHER, "short"))
    assert (await lab.client.get(names.pods_path(OTHER)))["items"] == []
    await lab.operator.stop()
    requests = _read_requests(audit_log)
    assert {one["responseStatus"]["code"] for one in requests} <= {101, 200, 201, 404, 409}
    assert {one["objectRef"].get("namespace") for one in requests} == {None, SERVED}
    assert {_use(one) for one in requests if not one["objectRef"].get("namespace")} == _granted(node_rules())
    assert {_use(one) for one in requests if one["objectRef"].get("namespace")} == _granted(task_rules())


def _read_requests(audit_log: Path) -> list[Object]:
    """Return the requests for resources; discovery needs no rights."""
    events = [json.loads(line) for line in audit_log.read_text().splitlines()]
    return [one for one in events if one.get("objectRef")]


async def _create(lab: Lab, namespace: str, name: str, *, output_tokens: int, **spec: Any) -> None:
    request = Request(name, lab.scenario.model, 0.0, 200, output_tokens, 1000, 60.0)
    manifest = task_manifest(request, namespace=namespace)
    manifest["spec"].update(spec)
    await lab.client.post(names.tasks_path(namespace), manifest)


async def _is_done(lab: Lab) -> bool:
    tasks = (await lab.client.get(names.tasks_path(SERVED)))["items"]
    pods = (await lab.client.get(names.pods_path(SERVED)))["items"]
    phases = {task["metadata"]["name"]: (task.get("status") or {}).get("phase") for task in tasks}
    return set(phases) == {"short", "long"} and set(phases.values()) <= FINAL_PHASES and len(pods) <= 1


async def _has_learned(lab: Lab) -> bool:
    return any("status" in item for item in (await lab.client.get(names.node_profiles_path()))["items"])


def _use(event: Object) -> Use:
    what = event["objectRef"]
    subresource = f"/{what['subresource']}" if what.get("subresource") else ""
    return what.get("apiGroup", ""), what["resource"] + subresource, event["verb"]


def _granted(rules: Iterable[Object]) -> set[Use]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
