"""What PerLLM needs to know of a task's pod."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from perllm.api import names
from perllm.api.report import RunReport, parse_run_report
from perllm.cluster.client import Object
from perllm.cluster.times import parse_time_s


class PodPhase(StrEnum):
    """Phases of a pod."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a task. Times are Unix seconds; Kubernetes' own have a resolution of one second.

    Attributes:
        key: namespace/name.
        name: its name.
        uid: its identity.
        task_uid: uid of the task that owns it.
        task_key: namespace/name of that task.
        attempt: which attempt at the task it is, from 1.
        node: where it is bound; None while it waits.
        phase: its phase.
        is_deleting: whether its deletion was asked for.
        is_disrupted: whether Kubernetes stopped it for reasons outside of it: preemption, eviction, a lost node.
        reason: why it failed, in a word.
        message: why it failed, in words.
        exit_code: exit code of the first container, None unless it ended.
        started_s: when the first container started.
        finished_s: when the first container ended.
        report: what the container said about its run.
        decision_record: the decision that was written when it was bound.
        unschedulable: why kube-scheduler finds no node for it, in its words; None unless it says so.
    """

    key: str
    name: str
    uid: str
    task_uid: str
    task_key: str
    attempt: int
    node: str | None
    phase: PodPhase
    is_deleting: bool
    is_disrupted: bool
    reason: str
    message: str
    exit_code: int | None
    started_s: float | None
    finished_s: float | None
    report: RunReport | None
    decision_record: str | None
    unschedulable: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it will never run again."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)


def read_pod(item: Object) -> Pod | None:
    """Return the pod that `item` describes; None if no task owns it."""
    metadata, status = item["metadata"], item.get("status", {})
    owner = next((one for one in metadata.get("ownerReferences", ()) if one["kind"] == names.TASK_KIND), None)
    if owner is None:
        return None
    state = _first_container_state(item["spec"], status)
    ended = state.get("terminated") or {}
    running = state.get("running") or {}
    namespace, name = metadata["namespace"], metadata["name"]
    return Pod(
        key=f"{namespace}/{name}",
        name=name,
        uid=metadata["uid"],
        task_uid=owner["uid"],
        task_key=f"{namespace}/{owner['name']}",
        attempt=_read_attempt(metadata),
        node=item["spec"].get("nodeName") or None,
        phase=PodPhase(status.get("phase", PodPhase.PENDING)),
        is_deleting="deletionTimestamp" in metadata,
        is_disrupted=any(
            one["type"] == "DisruptionTarget" and one["status"] == "True" for one in status.get("conditions") or ()
        ),
        reason=status.get("reason") or ended.get("reason") or "",
        message=status.get("message") or "",
        exit_code=ended.get("exitCode"),
        started_s=parse_time_s(ended.get("startedAt") or running.get("startedAt")),
        finished_s=parse_time_s(ended.get("finishedAt")),
        report=parse_run_report(ended.get("message")),
        decision_record=metadata.get("annotations", {}).get(names.DECISION_ANNOTATION),
        unschedulable=_find_unschedulable(status),
    )


def _find_unschedulable(status: dict[str, Any]) -> str | None:
    found = (one for one in status.get("conditions") or () if one["type"] == "PodScheduled")
    return next((str(one.get("message") or "") for one in found if one["status"] == "False"), None)


def _first_container_state(spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the first container of the spec; statuses come in an order of their own."""
    first = spec["containers"][0]["name"]
    states = {one["name"]: one.get("state") or {} for one in status.get("containerStatuses") or ()}
    state: dict[str, Any] = states.get(first, {})
    return state


def _read_attempt(metadata: dict[str, Any]) -> int:
    text = metadata.get("labels", {}).get(names.ATTEMPT_LABEL, "1")
    return int(text) if text.isdigit() else 1
