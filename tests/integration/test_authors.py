"""The right to create tasks alone does not give a user pods; seen through kubectl."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.authors import POLICY_NAME, build_author_policy
from perllm_lab.kubernetes.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
NAMESPACE, ELSEWHERE = "authors", "authors-elsewhere"
TASKS_ONLY, TASKS_AND_PODS, PODS_ELSEWHERE = "tasks-only", "tasks-and-pods", "pods-elsewhere"
PRIVILEGED: dict[str, Any] = {
    "hostPID": True,
    "containers": [{"name": "main", "image": "llm", "securityContext": {"privileged": True}}],
}
TIMEOUT_S = 30.0


class Kubectl:
    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv

    def __call__(self, *args: str, body: object = None) -> str:
        result = self.run(*args, body=body)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def run(self, *args: str, body: object = None) -> subprocess.CompletedProcess[str]:
        text = None if body is None else json.dumps(body)
        command = (*self._argv, "--namespace", NAMESPACE, *args)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def create(self, user: str, task: dict[str, Any]) -> str:
        """Return why a user may not create a task; empty if that is allowed."""
        return self.run("create", "--dry-run=server", f"--as={user}", "-f", "-", body=task).stderr


def make_task(name: str = "task", **spec: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "main", "image": "llm"}], **spec}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "metadata": {"name": name},
        "spec": {"model": "llama", "promptTokens": 10, "deadline": "30s", "template": {"spec": pod}},
    }


def wait_until(holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < end_s, "timed out"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    kubectl = Kubectl(control_plane.kubectl_argv)
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    for namespace in (NAMESPACE, ELSEWHERE):
        kubectl("create", "namespace", namespace)
    kubectl("create", "role", "tasks", "--verb=create,get,patch", f"--resource={names.TASK_PLURAL}.{names.GROUP}")
    for user in (TASKS_ONLY, TASKS_AND_PODS, PODS_ELSEWHERE):
        kubectl("create", "rolebinding", f"tasks-{user}", "--role=tasks", f"--user={user}")
    for namespace, user in ((NAMESPACE, TASKS_AND_PODS), (ELSEWHERE, PODS_ELSEWHERE)):
        kubectl("create", "role", "pods", "--namespace", namespace, "--verb=create", "--resource=pods")
        kubectl("create", "rolebinding", "pods", "--namespace", namespace, "--role=pods", f"--user={user}")
    yield kubectl
    kubectl("delete", "namespace", NAMESPACE, ELSEWHERE, "--wait=false")


@pytest.fixture(scope="module")
def policy(kubectl: Kubectl) -> Iterator[None]:
    """The policy, in force at the API server."""
    for manifest in build_author_policy():
        kubectl("create", "-f", "-", body=manifest)
    wait_until(lambda: kubectl.create(TASKS_ONLY, make_task()))
    yield
    for manifest in build_author_policy():
        kubectl("delete", manifest["kind"], POLICY_NAME)


def test_without_the_policy_the_right_to_create_tasks_is_enough(kubectl: Kubectl) -> None:
    """What docs/security.md warns about; runs first, since the policy stays for the other tests."""
    assert kubectl.create(TASKS_ONLY, make_task(**PRIVILEGED)) == ""


def test_author_who_may_not_create_pods_reads_which_right_is_missing(kubectl: Kubectl, policy: None) -> None:
    denial = kubectl.create(TASKS_ONLY, make_task(**PRIVILEGED))

    assert "(Forbidden)" in denial or "is forbidden" in denial
    assert (
        "tasks-only may not create pods in namespace authors, and a task with a template creates pods there: "
        "let an administrator grant create on pods, for example by the ClusterRole edit"
    ) in denial


def test_author_who_may_create_pods_only_in_another_namespace_is_denied(kubectl: Kubectl, policy: None) -> None:
    assert "pods-elsewhere may not create pods in namespace authors" in kubectl.create(PODS_ELSEWHERE, make_task())


def test_author_who_may_create_pods_there_may_create_tasks(kubectl: Kubectl, policy: None) -> None:
    assert kubectl.create(TASKS_AND_PODS, make_task()) == ""


def test_no_author_may_choose_the_node(kubectl: Kubectl, policy: None) -> None:
    denial = kubectl.create(TASKS_AND_PODS, make_task(nodeName="edge-1"))

    assert "spec.template.spec.nodeName must be absent: PerLLM chooses the node" in denial


def patch(kubectl: Kubectl, user: str, spec: dict[str, Any]) -> str:
    """Return why a user may not change a task; empty if that is allowed."""
    arguments = ("llmtask", "kept", "--type=merge", "--patch", json.dumps({"spec": spec}), f"--as={user}")
    return kubectl.run("patch", *arguments).stderr


def test_update_that_leaves_the_template_alone_needs_no_pods(kubectl: Kubectl, policy: None) -> None:
    kubectl("apply", "-f", "-", body=make_task("kept"))

    assert patch(kubectl, TASKS_ONLY, {"priority": 5}) == ""


def test_update_of_the_template_needs_them_where_the_definition_allows_it(kubectl: Kubectl, policy: None) -> None:
    """Definitions of this version do not allow it, but the policy does not rely on them."""
    kubectl("apply", "-f", "-", body=make_task("kept"))
    spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
    without_rules = [
        {"op": "remove", "path": f"{part}/x-kubernetes-validations"} for part in (spec, f"{spec}/properties/template")
    ]
    definition = ("crd", f"{names.TASK_PLURAL}.{names.GROUP}")
    numbers = iter(range(1000))

    def change(user: str) -> str:
        return patch(kubectl, user, {"template": {"metadata": {"labels": {"change": str(next(numbers))}}}})

    kubectl("patch", *definition, "--type=json", "--patch", json.dumps(without_rules))
    try:
        wait_until(lambda: not change(TASKS_AND_PODS))
        denial = change(TASKS_ONLY)
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        wait_until(lambda: change(TASKS_AND_PODS))

    assert "tasks-only may not create pods in namespace authors" in denial
