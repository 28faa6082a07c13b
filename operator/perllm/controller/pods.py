"""The pod that carries out an attempt at a task."""

import copy
from collections.abc import Sequence
from typing import Any

from perllm.api import names
from perllm.api.owners import refer_to_controlling_task
from perllm.cluster.shapes import as_objects, as_text
from perllm.cluster.times import format_time
from perllm.controller.narrowing import narrow
from perllm.controller.task import Task


def build_pod(
    task: Task,
    attempt: int,
    scheduler_name: str,
    *,
    named: Sequence[str] = (),
    runner_template: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the pod of an attempt, made from the task's template, or from that of its runner pod if it has none.

    It is narrowed to the nodes in `named`, if there are any and it can be.
    """
    spec = task.valid_spec
    template = copy.deepcopy(spec.template or runner_template or {})
    metadata = template.get("metadata") or {}
    pod_spec = _merge({"restartPolicy": "Never", **template["spec"]}, task.update.to_pod_spec())
    pod_spec["schedulerName"] = scheduler_name
    own_labels = _without_ours({**(metadata.get("labels") or {}), **dict(task.update.labels)})
    narrowed = narrow(pod_spec, own_labels, named)
    labels = {
        **own_labels,
        names.TASK_LABEL: names.to_label_value(task.name),
        names.MODEL_LABEL: names.to_label_value(spec.model),
        names.ATTEMPT_LABEL: str(attempt),
    }
    annotations = {
        **_without_ours({**(metadata.get("annotations") or {}), **dict(task.update.annotations)}),
        names.DEADLINE_ANNOTATION: format_time(task.due_s),
        names.CONTAINERS_ANNOTATION: ",".join(_container_names(pod_spec)),
        **({} if narrowed is None else {names.NAMED_NODES_ANNOTATION: ",".join(named)}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.pod_name(task.name, attempt),
            "namespace": task.namespace,
            "labels": labels,
            "annotations": annotations,
            "finalizers": [names.OUTCOME_FINALIZER],
            "ownerReferences": [refer_to_controlling_task(task.name, task.uid)],
        },
        "spec": narrowed or pod_spec,
    }


def _merge(pod_spec: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a pod with a nodeSelector and tolerations added."""
    selector = {**(pod_spec.get("nodeSelector") or {}), **added["nodeSelector"]}
    tolerations = [*(pod_spec.get("tolerations") or []), *added["tolerations"]]
    merged = {"nodeSelector": selector, "tolerations": tolerations}
    return pod_spec | {name: value for name, value in merged.items() if value}


def _without_ours(values: dict[str, str]) -> dict[str, str]:
    """Return labels or annotations of a template without those that PerLLM alone writes."""
    return {key: value for key, value in values.items() if key.partition("/")[0] != names.GROUP}


def _container_names(pod_spec: dict[str, Any]) -> list[str]:
    """Return the names of the task's own containers, since others may be injected."""
    return [as_text(container.get("name")) for container in as_objects(pod_spec["containers"])]
