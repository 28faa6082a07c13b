"""The Workload of a task: what Kueue needs to know to give it quota, and what Kueue has decided.

Kueue does the same for the Jobs that it knows: one Workload each, owned by the job. It says in conditions of the
Workload what the job may do, and the job's controller says there what the job has done.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perllm.api import names
from perllm.api.owners import refer_to_controlling_task
from perllm.cluster.client import Object
from perllm.cluster.rbac import KUEUE_GROUP
from perllm.cluster.shapes import as_object, as_objects, as_text
from perllm.kueue.pod_update import NO_UPDATE, PodUpdate, merge_updates, read_update
from perllm.text import clean_line

API_VERSION = f"{KUEUE_GROUP}/v1beta2"
QUEUE_LABEL = f"{KUEUE_GROUP}/queue-name"
PRIORITY_CLASS_LABEL = f"{KUEUE_GROUP}/priority-class"
POD_SET = "main"

ADMITTED = "Admitted"
EVICTED = "Evicted"
FINISHED = "Finished"
PODS_READY = "PodsReady"
QUOTA_RESERVED = "QuotaReserved"
REQUEUED = "Requeued"

MAX_MESSAGE = 2000
_HASH_LENGTH = 8
_MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task that waits for quota, or has it.

    Attributes:
        namespace: its namespace.
        name: its name.
        uid: its identity.
        queue: the LocalQueue that it is in.
        priority: tasks of higher priority are admitted first, and may preempt others.
        priority_class: the WorkloadPriorityClass that states the priority; empty if the task states it.
        template: the pod template whose requests it takes of the quota.
    """

    namespace: str
    name: str
    uid: str
    queue: str
    priority: int
    priority_class: str
    template: Mapping[str, Any]

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class TaskWorkload:
    """A Workload as last seen.

    Attributes:
        namespace: its namespace.
        name: its name.
        task: name of the task that owns it.
        task_uid: identity of that task.
        version: of the object, so that nothing is written over what was not seen.
        conditions: as they are.
        flavors: the ResourceFlavors that its quota is of.
        update: what its admission checks add to the pod, in addition to the flavors.
    """

    namespace: str
    name: str
    task: str
    task_uid: str
    version: str
    conditions: tuple[Object, ...]
    flavors: tuple[str, ...] = ()
    update: PodUpdate = NO_UPDATE

    @property
    def task_key(self) -> str:
        """namespace/name of its task."""
        return f"{self.namespace}/{self.task}"

    @property
    def may_run(self) -> bool:
        """Whether its task may run: it is admitted and not evicted.

        If it is finished the task has ended. If that was not stored before the operator died, it is to end again.
        """
        return self.holds(FINISHED) or (self.holds(ADMITTED) and not self.holds(EVICTED))

    def holds(self, kind: str) -> bool:
        """Whether a condition is true."""
        return as_text(self.find(kind).get("status")) == "True"

    def find(self, kind: str) -> Object:
        """Return a condition; empty if there is none."""
        return next((one for one in self.conditions if one.get("type") == kind), {})

    def explain(self) -> str:
        """Return in Kueue's words why its task may not run."""
        admission = ADMITTED if self.holds(QUOTA_RESERVED) else QUOTA_RESERVED
        telling = EVICTED if self.holds(EVICTED) else admission
        return clean_line(as_text(self.find(telling).get("message")), MAX_MESSAGE)


def read_workload(item: Object) -> TaskWorkload | None:
    """Return the Workload of a task; None if no task owns it."""
    metadata, status = as_object(item.get("metadata")), as_object(item.get("status"))
    owner = next((one for one in as_objects(metadata.get("ownerReferences")) if one.get("kind") == names.TASK_KIND), {})
    if not owner:
        return None
    assigned = as_objects(as_object(status.get("admission")).get("podSetAssignments"))
    updates = [update for check in as_objects(status.get("admissionChecks")) for update in _updates_of(check)]
    return TaskWorkload(
        namespace=as_text(metadata.get("namespace")),
        name=as_text(metadata.get("name")),
        task=as_text(owner.get("name")),
        task_uid=as_text(owner.get("uid")),
        version=as_text(metadata.get("resourceVersion")),
        conditions=tuple(as_objects(status.get("conditions"))),
        flavors=tuple(sorted({as_text(name) for one in assigned for name in as_object(one.get("flavors")).values()})),
        update=merge_updates(map(read_update, updates)),
    )


def build_workload(task: QueuedTask) -> Object:
    """Return the Workload that asks for a task's quota."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {
            "name": workload_name(task.name, task.uid),
            "namespace": task.namespace,
            "labels": {names.TASK_LABEL: names.to_label_value(task.name)},
            "ownerReferences": [refer_to_controlling_task(task.name, task.uid)],
        },
        "spec": {
            "queueName": task.queue,
            "priority": task.priority,
            **_refer_to_class(task.priority_class),
            "podSets": [{"name": POD_SET, "count": 1, "template": {"spec": task.template["spec"]}}],
        },
    }


def _refer_to_class(name: str) -> Object:
    if not name:
        return {}
    return {"priorityClassRef": {"group": KUEUE_GROUP, "kind": "WorkloadPriorityClass", "name": name}}


def build_request_template(resource: str) -> dict[str, Any]:
    """Return the pod template by which a served task, which has none, takes one unit of a resource."""
    return {"spec": {"restartPolicy": "Never", "containers": [_build_container(resource)]}}


def _build_container(resource: str) -> dict[str, Any]:
    return {"name": "request", "image": "none", "resources": {"requests": {resource: "1"}}}


def workload_name(task: str, uid: str) -> str:
    """Return the name of a task's Workload; a later task of the same name has another one."""
    kind = names.TASK_KIND.lower()
    digest = hashlib.sha256(uid.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{kind}-{task}"[: _MAX_NAME - _HASH_LENGTH - 1].rstrip("-.") + f"-{digest}"


def workloads_path(namespace: str | None = None) -> str:
    """Return the API path of the Workloads of one namespace, or of all when it is None."""
    place = f"namespaces/{namespace}/" if namespace is not None else ""
    return f"/apis/{API_VERSION}/{place}workloads"


def priority_classes_path() -> str:
    """Return the API path of the WorkloadPriorityClasses."""
    return f"/apis/{API_VERSION}/workloadpriorityclasses"


def flavors_path() -> str:
    """Return the API path of the ResourceFlavors."""
    return f"/apis/{API_VERSION}/resourceflavors"


def _updates_of(check: Object) -> list[Object]:
    return as_objects(check.get("podSetUpdates"))
