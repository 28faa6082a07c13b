"""What PerLLM needs to know about a task's pod."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from perllm.api import names
from perllm.api.report import RunReport, parse_run_report
from perllm.cluster.client import Object
from perllm.cluster.containers import MAX_REASON, Container, find_wait, read_containers, read_own_names
from perllm.cluster.shapes import as_list, as_object, as_objects, as_text
from perllm.cluster.times import END_OF_TIME_S, parse_time_s
from perllm.text import clean_line

MAX_ATTEMPT = 999
"""No task has more pods, so PerLLM has never written a higher number."""

LINGER_S = 30.0
"""Kubernetes' own default grace period for a container that has to stop."""

DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Reason of a pod that exceeded its activeDeadlineSeconds."""


OTHER_WRITERS = ("kube-controller-manager", "kube-scheduler", names.FIELD_MANAGER)
"""Who writes statuses of pods apart from their nodes, or what speaks for these, such as KubeEdge's cloudcore."""


class PodPhase(StrEnum):
    """Phases of a pod."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


_PHASES = frozenset(PodPhase)


class Timing(StrEnum):
    """By which clock the start and the end of a pod are known."""

    NODE = "node"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Misfit:
    """What is known of a pod that fits on none of the nodes that it names.

    Attributes:
        since_s: when kube-scheduler found that, Unix seconds.
        version: resource version of the pod.
    """

    since_s: float
    version: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a task. Times are Unix seconds; those that Kubernetes writes have a resolution of one second.

    The task's own containers are those of its template; the first of them does the work. Others were injected, for
    example by a service mesh, and are ignored.

    Attributes:
        key: namespace/name.
        name: its name.
        uid: its identity.
        task_uid: uid of the task that owns it; empty if none does any more.
        task_key: namespace/name of that task.
        attempt: number of the attempt, from 1.
        node: node that it is bound to; None while it waits.
        phase: its phase, derived from the task's own containers.
        is_deleting: whether its deletion was requested.
        gone_by_s: when it should be gone, if so.
        is_retained: whether our finalizer retains it.
        is_disrupted: whether Kubernetes stopped it for external reasons: preemption, eviction, a lost node.
        was_deleted: whether it failed because its deletion was requested.
        reason: why it failed, as one word.
        message: why it failed, as a sentence.
        exit_code: exit code of the container that decided its end; None if no container ended.
        culprit: name of that container, if it is not the first one of the template.
        wait_reason: why it is not running yet, as one word; empty if unknown.
        wait_message: why it is not running yet, as a sentence.
        created_s: when the API server created it.
        idle_since_s: since when it has a node, but no running container; None if one runs or has run.
        reported_s: when its status was last written, by the API server's clock.
        heard_s: when its node last wrote it, by the same clock.
        started_s: when the first container started.
        finished_s: when the first container ended.
        timing: clock of `started_s` and `finished_s`.
        linger_s: how long containers may keep running after the work is done; None if none does.
        report: run report of the first container.
        decision_record: the decision record that was written with the binding.
        misfit: that it fits on none of the nodes that it names, as kube-scheduler says; None otherwise.
        is_served: whether this is not a pod, but a request to a model server (controller/served_runs.py).
        retry_after_s: how long the model server that did not accept it asked to wait.
        may_run_until_s: until when it may still be running although it is being deleted, since its node does not
            answer; None where the deletion counts at once.
        has_left_slots: whether its slots count as free although it is not gone.
        is_forced: whether its deletion was requested without waiting for its node, and only our finalizer retains it.
        was_restarted: whether a container of its own ran more than once, so its times are not those of its work.
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
    gone_by_s: float | None
    is_retained: bool
    is_disrupted: bool
    was_deleted: bool
    reason: str
    message: str
    exit_code: int | None
    culprit: str
    wait_reason: str
    wait_message: str
    created_s: float | None
    idle_since_s: float | None
    reported_s: float | None
    started_s: float | None
    finished_s: float | None
    timing: Timing
    linger_s: float | None
    report: RunReport | None
    decision_record: str | None
    misfit: Misfit | None = None
    is_served: bool = False
    retry_after_s: float = 0.0
    heard_s: float | None = None
    may_run_until_s: float | None = None
    has_left_slots: bool = False
    is_forced: bool = False
    was_restarted: bool = False

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.key.partition("/")[0]

    @property
    def output_tokens(self) -> int | None:
        """Length of its answers if these are complete; None if they are not, or it has not said."""
        return self.report.output_tokens if self.report and self.phase is PodPhase.SUCCEEDED else None

    @property
    def prompts(self) -> int:
        """Number of prompts that it had by its own account; 1 if it has not said."""
        return (self.report.prompts if self.report else None) or 1

    @property
    def is_sequential(self) -> bool:
        """Whether it asked one prompt at a time, as far as it has said."""
        return ((self.report.concurrency if self.report else None) or 1) == 1

    @property
    def is_finished(self) -> bool:
        """Whether its work has ended."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def has_helpers_left(self) -> bool:
        """Whether its first container has ended, but others of the template have not."""
        return not self.is_finished and self.finished_s is not None


def read_pod(item: Object) -> Pod | None:
    """Return the pod that `item` describes; None if PerLLM cannot have created it.

    A pod that has lost its task or its labels, by hand or by a deletion that orphans dependents, is returned while our
    finalizer retains it.

    Users may write to pods, so parts of an unexpected type count as absent. Never raises.
    """
    owner, attempt = _read_task(as_object(item.get("metadata")))
    pod = _read_any(item, as_text(owner.get("uid")), as_text(owner.get("name")), attempt)
    return pod if pod is not None and (owner or pod.is_retained) else None


def find_task(item: Object) -> tuple[str, str]:
    """Return namespace/name and uid of the task that owns a pod, as `read_pod` does; an empty uid if none does."""
    metadata = as_object(item.get("metadata"))
    owner, _ = _read_task(metadata)
    return f"{as_text(metadata.get('namespace'))}/{as_text(owner.get('name'))}", as_text(owner.get("uid"))


def read_other_pod(item: Object) -> Pod | None:
    """Return a pod of another scheduler as if it were the only attempt at a task of its own; None if it is one of ours.

    Users may write to pods, so parts of an unexpected type count as absent. Never raises.
    """
    metadata = as_object(item.get("metadata"))
    if _find_owner(metadata):
        return None
    return _read_any(item, as_text(metadata.get("uid")), as_text(metadata.get("name")), 1)


def _read_any(item: Object, task_uid: str, task_name: str, attempt: int) -> Pod | None:
    """Return a pod; None if it has no name, namespace or uid."""
    metadata, spec, status = (as_object(item.get(part)) for part in ("metadata", "spec", "status"))
    namespace, name, uid = (as_text(metadata.get(field)) for field in ("namespace", "name", "uid"))
    if not (namespace and name and uid):
        return None
    annotations = as_object(metadata.get("annotations"))
    containers = read_containers(spec, status, read_own_names(annotations, spec))
    own = [one for one in containers if one.is_own and not one.is_init]
    first = own[0] if own else None
    phase = _judge_phase(status, own)
    last = _find_decisive(phase, containers)
    node = as_text(spec.get("nodeName")) or None
    created_s = parse_time_s(metadata.get("creationTimestamp"))
    bound_s = parse_time_s(_find_condition(status, "PodScheduled").get("lastTransitionTime")) if node else None
    wait_reason, wait_message = _find_wait(status, node, containers)
    return Pod(
        key=f"{namespace}/{name}",
        name=name,
        uid=uid,
        task_uid=task_uid,
        task_key=f"{namespace}/{task_name}",
        attempt=attempt,
        node=node,
        phase=phase,
        is_deleting=bool(metadata.get("deletionTimestamp")),
        gone_by_s=parse_time_s(metadata.get("deletionTimestamp")),
        is_retained=names.OUTCOME_FINALIZER in as_list(metadata.get("finalizers")),
        is_disrupted=_find_condition(status, "DisruptionTarget").get("status") == "True",
        was_deleted=phase is PodPhase.FAILED and _ended_by_deletion(metadata, first),
        reason=clean_line(as_text(status.get("reason")), MAX_REASON) or (last.reason if last else ""),
        message=clean_line(as_text(status.get("message")) or _read_last_words(phase, last)),
        exit_code=last.exit_code if last else None,
        culprit="" if last is None or last is first else last.name,
        wait_reason=wait_reason,
        wait_message=wait_message,
        created_s=created_s,
        idle_since_s=(bound_s or created_s) if _is_idle(node, phase, containers) else None,
        reported_s=_read_reported(metadata),
        heard_s=_read_reported(metadata, without=OTHER_WRITERS),
        started_s=first.started_s if first else None,
        finished_s=first.finished_s if first else None,
        timing=Timing.NODE,
        linger_s=_read_patience(status, own, containers),
        report=parse_run_report(first.said) if first and first.is_over else None,
        decision_record=as_text(annotations.get(names.DECISION_ANNOTATION)) or None,
        misfit=_read_misfit(metadata, annotations, status) if node is None else None,
        is_forced=metadata.get("deletionGracePeriodSeconds") == 0 and spec.get("terminationGracePeriodSeconds") != 0,
        was_restarted=any(one.was_restarted for one in own),
    )


def _read_task(metadata: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the reference to the task of a pod, empty if it has none, and the number of the attempt."""
    owner, attempt = _find_owner(metadata), _read_attempt(as_object(metadata.get("labels")))
    is_own = attempt and as_text(metadata.get("name")) == names.pod_name(as_text(owner.get("name")), attempt)
    return owner if is_own else {}, attempt


def _find_owner(metadata: dict[str, Any]) -> dict[str, Any]:
    owners = as_objects(metadata.get("ownerReferences"))
    return next((one for one in owners if one.get("kind") == names.TASK_KIND), {})


def _read_attempt(labels: dict[str, Any]) -> int:
    """Return the number of the attempt, 1 if the label is missing; 0 for values that PerLLM never writes."""
    text = as_text(labels.get(names.ATTEMPT_LABEL, "1"))
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ATTEMPT))
    return int(text) if is_number else 0


def _find_condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((one for one in as_objects(status.get("conditions")) if one.get("type") == kind), {})


def _judge_phase(status: dict[str, Any], own: Sequence[Container]) -> PodPhase:
    """Return the phase of the task's own containers; injected ones may keep running or fail."""
    reported = as_text(status.get("phase"))
    phase = PodPhase(reported) if reported in _PHASES else PodPhase.PENDING
    was_stopped = phase is PodPhase.FAILED and bool(status.get("reason"))
    if was_stopped or not own or not all(one.is_over for one in own):
        return phase
    return PodPhase.SUCCEEDED if all(one.exit_code == 0 for one in own) else PodPhase.FAILED


def _find_decisive(phase: PodPhase, containers: Sequence[Container]) -> Container | None:
    """Return the container that decided the end of the pod: the one that failed, else the first one."""
    first = containers[0] if containers and containers[0].exit_code is not None else None
    if phase is not PodPhase.FAILED:
        return first
    return next((one for one in containers if one.has_failed), first)


def _read_last_words(phase: PodPhase, last: Container | None) -> str:
    """Return the termination message of the container that failed, unless it is a run report."""
    has_words = phase is PodPhase.FAILED and last is not None and parse_run_report(last.said) is None
    return last.said if has_words and last is not None else ""


def _is_idle(node: str | None, phase: PodPhase, containers: Sequence[Container]) -> bool:
    """Whether a pod has a node but makes no progress: neither its work nor an init container before it is running.

    A pod whose init container keeps failing and being restarted, as its restartPolicy says, does not count as idle.
    """
    if node is None or phase is not PodPhase.PENDING or not containers or containers[0].started_s is not None:
        return False
    awaits_others = containers[0].wait_reason in ("", "PodInitializing")
    inits = [one for one in containers if one.is_init]
    return not (awaits_others and any(one.is_running or one.wait_reason == "CrashLoopBackOff" for one in inits))


def _find_wait(status: dict[str, Any], node: str | None, containers: Sequence[Container]) -> tuple[str, str]:
    """Return reason and message for which a pod is not running yet, as kube-scheduler or kubelet reports them."""
    if node is not None:
        return find_wait(containers)
    scheduled = _find_condition(status, "PodScheduled")
    if scheduled.get("status") != "False":
        return "", ""
    return clean_line(as_text(scheduled.get("reason")), MAX_REASON), clean_line(as_text(scheduled.get("message")))


def _read_misfit(metadata: dict[str, Any], annotations: dict[str, Any], status: dict[str, Any]) -> Misfit | None:
    """Return since when kube-scheduler finds no place for a pod without a node; None if it does, or may use any.

    While it preempts other pods, or carries out a placement, the pod has a nominated node.
    """
    scheduled = _find_condition(status, "PodScheduled")
    since_s = parse_time_s(scheduled.get("lastTransitionTime"))
    is_misfit = (scheduled.get("status"), scheduled.get("reason")) == ("False", "Unschedulable")
    if not is_misfit or since_s is None or status.get("nominatedNodeName"):
        return None
    if names.NAMED_NODES_ANNOTATION not in annotations:
        return None
    return Misfit(since_s, as_text(metadata.get("resourceVersion")))


def _ended_by_deletion(metadata: dict[str, Any], first: Container | None) -> bool:
    """Whether a failed pod that is being deleted failed because of the deletion, not before it."""
    gone_by_s = parse_time_s(metadata.get("deletionTimestamp"))
    if gone_by_s is None or first is None or first.finished_s is None:
        return bool(metadata.get("deletionTimestamp"))
    grace_s = metadata.get("deletionGracePeriodSeconds")
    asked_s = gone_by_s - (max(0, min(grace_s, END_OF_TIME_S)) if type(grace_s) is int else 0)
    return first.finished_s + 1.0 >= asked_s


def _read_reported(metadata: dict[str, Any], without: Collection[str] = ()) -> float | None:
    """Return when the API server last stored a status of the pod, of any writer but these, in Unix seconds."""
    writes = [
        one
        for one in as_objects(metadata.get("managedFields"))
        if one.get("subresource") == "status" and one.get("manager") not in without
    ]
    times_s = [time_s for one in writes if (time_s := parse_time_s(one.get("time"))) is not None]
    return max(times_s, default=None)


def _read_patience(status: dict[str, Any], own: Sequence[Container], containers: Sequence[Container]) -> float | None:
    """Return how long the pod may stay once its work is over; None if Kubernetes has ended it already.

    Containers of the template get time to end, and so do sidecars, which kubelet stops. Injected containers would never
    end.
    """
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    lives_on = any(not (one.is_over or one.is_init or one in own) for one in containers)
    return 0.0 if lives_on else LINGER_S
