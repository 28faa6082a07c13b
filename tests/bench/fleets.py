"""Nodes and pods of the benchmark: the kinds of the modern scenario in any number, one kind of work."""

from perllm.api import names
from perllm_lab.hardware.scenario import NodeGroup, Scenario
from perllm_lab.workload.manifests import Object, pod_manifest, task_manifest
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

PODS = "/api/v1/namespaces/default/pods"
TASKS = names.tasks_path("default")
DEADLINE_S = 900.0
"""Long: the benchmark measures speed, not how well deadlines are met."""


def build_scenario(count: int) -> Scenario:
    """Return `count` nodes in the proportions of the modern scenario."""
    modern = load_scenario("modern")
    total = sum(group.count for group in modern.groups)
    groups: list[NodeGroup] = []
    cumulated = placed = 0
    for group in modern.groups:
        cumulated += group.count
        number = round(count * cumulated / total) - placed
        placed += number
        groups.append(group.model_copy(update={"count": number}))
    return modern.model_copy(update={"name": f"bench-{count}", "groups": tuple(groups)})


def build_request(name: str) -> Request:
    """Return one task like all others."""
    return Request(name, "chat", 0.0, prompt_tokens=400, output_tokens=100, input_bytes=1600, deadline_s=DEADLINE_S)


def build_pods(prefix: str, count: int, scheduler: str) -> list[Object]:
    """Return bare pods for one scheduler."""
    pods = [pod_manifest(build_request(f"{prefix}-{index}"), namespace="default") for index in range(count)]
    for pod in pods:
        pod["spec"]["schedulerName"] = scheduler
    return pods


def build_tasks(prefix: str, count: int) -> list[Object]:
    """Return tasks whose pods do the same work from the same template."""
    return [task_manifest(build_request(f"{prefix}-{index}"), namespace="default") for index in range(count)]
