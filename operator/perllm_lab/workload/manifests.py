"""Requests as Kubernetes objects: tasks for PerLLM, bare pods for the plain kube-scheduler."""

from typing import Any

from perllm.api.names import API_VERSION, GPU_RESOURCE, MODEL_LABEL, TASK_KIND, to_label_value
from perllm_lab.workload.names import (
    CONTAINER,
    IMAGE,
    INPUT_BYTES_ANNOTATION,
    OUTPUT_TOKENS_ANNOTATION,
    PROMPT_TOKENS_ANNOTATION,
)
from perllm_lab.workload.prompts import write_prompt
from perllm_lab.workload.requests import Request

Object = dict[str, Any]

# Large enough that kube-scheduler's least-allocated score, which it rounds to whole percents, sees the load of a node.
CPU_REQUEST = "1"
MEMORY_REQUEST = "2Gi"


def task_manifest(request: Request, *, namespace: str, speed: float = 1.0) -> Object:
    """Returns the pod task of a request; its deadline shrinks by the lab's `speed`."""
    return _task(request, {"template": _template(request)}, namespace, speed)


def served_task_manifest(request: Request, *, namespace: str, speed: float = 1.0) -> Object:
    """Returns the served task of a request; its deadline shrinks by the lab's `speed`."""
    return _task(request, {"prompt": write_prompt(request)}, namespace, speed)


def pod_manifest(request: Request, *, namespace: str) -> Object:
    """Returns the same work as a bare pod, for the cluster's default scheduler."""
    template = _template(request)
    labels = {MODEL_LABEL: to_label_value(request.model)}
    metadata = {"name": request.name, "namespace": namespace, "labels": labels, **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def format_duration(seconds: float) -> str:
    """Writes a duration the way Kubernetes reads it, to the microsecond: 12.5 -> "12.5s"."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _task(request: Request, work: Object, namespace: str, speed: float) -> Object:
    spec: Object = {
        "model": request.model,
        "promptTokens": request.prompt_tokens,
        "inputBytes": request.input_bytes,
        "deadline": format_duration(request.deadline_s / speed),
        **work,
    }
    if request.hint_tokens is not None:
        spec["outputTokens"] = request.hint_tokens
    metadata = {"name": request.name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": TASK_KIND, "metadata": metadata, "spec": spec}


def _template(request: Request) -> Object:
    annotations = {
        PROMPT_TOKENS_ANNOTATION: str(request.prompt_tokens),
        OUTPUT_TOKENS_ANNOTATION: str(request.output_tokens),
        INPUT_BYTES_ANNOTATION: str(request.input_bytes),
    }
    container = {
        "name": CONTAINER,
        "image": IMAGE,
        "resources": {
            "requests": {"cpu": CPU_REQUEST, "memory": MEMORY_REQUEST},
            "limits": {GPU_RESOURCE: "1"},
        },
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
    }
    return {"metadata": {"annotations": annotations}, "spec": spec}
