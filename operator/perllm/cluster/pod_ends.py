"""How a pod ended, who is responsible for the failure, and when the operator gives up on a pod.

A failure is the task's own if its containers ended with an error, exceeded activeDeadlineSeconds or can never start as
specified. It says nothing about the task if the pod was refused, lost or stopped from outside.
"""

from dataclasses import dataclass, replace

from perllm.cluster.node import Node
from perllm.cluster.pod import DEADLINE_EXCEEDED, LINGER_S, Pod, PodPhase

START_TIMEOUT = "StartTimeout"

FIT_PATIENCE_S = 3.0
"""How long a pod may fit on none of the nodes that it names: kube-scheduler tries again after one second, and two."""

MISTAKES = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""Reasons of containers that cannot start on any node."""

AGENT_LOST = "AgentLost"
"""Reason of a request whose agent does not renew its Lease any more."""

MARGIN_S = 30.0
"""How much later than it should a deleted pod may report its end; after that its node is taken to be dead."""

RETURN_S = 30.0
"""How long a node that answers again may take to report what became of its pods."""

STOPPED = ("Evicted", "Preempting", AGENT_LOST)


@dataclass(frozen=True, slots=True)
class PodPatience:
    """How long the operator waits for pods, in seconds.

    Attributes:
        start_s: from the binding until a container runs.
        mistake_s: until something that a container refers to, such as a ConfigMap, exists.
        away_s: until a node answers again on which a pod is being deleted.
    """

    start_s: float = 300.0
    mistake_s: float = 30.0
    away_s: float = 0.0


def is_refusal(pod: Pod) -> bool:
    """Whether a failed pod never ran, or was stopped from outside, so that the task is not responsible."""
    if pod.phase is not PodPhase.FAILED or is_own_failure(pod):
        return False
    return pod.exit_code is None or pod.was_deleted or pod.is_disrupted or pod.reason in STOPPED


def is_own_failure(pod: Pod) -> bool:
    """Whether Kubernetes or the operator ended a pod because of what is in the task's template."""
    return pod.phase is PodPhase.FAILED and pod.reason in (DEADLINE_EXCEEDED, *MISTAKES)


def is_lost(pod: Pod) -> bool:
    """Whether a failed pod never ran, or it is unknown how its container ended."""
    return pod.phase is PodPhase.FAILED and pod.exit_code is None and not is_own_failure(pod)


def is_to_replace(pod: Pod, now_s: float) -> bool:
    """Whether a pod is replaced, or was deleted, because it fits on none of the nodes that it names."""
    return pod.misfit is not None and (pod.is_deleting or now_s >= pod.misfit.since_s + FIT_PATIENCE_S)


def call_end(pod: Pod, patience: PodPatience, due_s: float, now_s: float, *, is_current: bool = True) -> Pod:
    """Return the pod, marked as ended if the operator has stopped waiting for it.

    Args:
        pod: the pod as last seen.
        patience: how long the operator waits for pods.
        due_s: deadline of its task, Unix time.
        now_s: Unix time.
        is_current: whether it is known as it is, and not as it was before an outage, in which it may have started.
    """
    limit_s = _find_limit_s(pod, patience, due_s)
    if limit_s is None or now_s < limit_s:
        return pod
    if pod.has_helpers_left:
        return replace(pod, phase=PodPhase.SUCCEEDED if pod.exit_code == 0 else PodPhase.FAILED)
    if not is_current:
        return pod
    if pod.wait_reason in MISTAKES:
        return replace(pod, phase=PodPhase.FAILED, reason=pod.wait_reason, message=pod.wait_message)
    last = ": ".join(filter(None, (pod.wait_reason, pod.wait_message))) or "none"
    message = f"no container started within {patience.start_s:g} s; last report of the node: {last}"
    return replace(pod, phase=PodPhase.FAILED, reason=START_TIMEOUT, message=message)


def doubt_end(pod: Pod, node: Node | None, patience: PodPatience, now_s: float) -> Pod:
    """Return a pod that is being deleted, marked as one that may still be running if its node does not answer.

    Kubernetes deletes the pods of such a node, but they run until it hears of that. A node that answers again reports
    within moments how they ended. Slots are given up earlier: until the node answers, no other pod is placed there.
    Who deletes a pod by force knows that it does not run, or does not mind.

    Args:
        pod: the pod as last seen.
        node: its node; None if that has left.
        patience: how long the operator waits for it.
        now_s: Unix time.
    """
    if not pod.is_deleting or pod.is_forced or pod.is_finished or node is None or node.answers_since_s is None:
        return pod
    until_s = 0.0
    if patience.away_s:
        heard_s = node.answers_since_s if node.answers else max(node.answers_since_s, pod.heard_s or 0.0)
        until_s = heard_s + (RETURN_S if node.answers else patience.away_s)
    return replace(
        pod,
        may_run_until_s=until_s if now_s < until_s else None,
        has_left_slots=not node.answers and pod.gone_by_s is not None and now_s >= pod.gone_by_s + MARGIN_S,
    )


def next_look_s(pod: Pod, patience: PodPatience, due_s: float, now_s: float = 0.0) -> float | None:
    """Return the Unix time after now at which a pod has to be examined even if it does not change; None for never."""
    if pod.misfit is not None:
        return pod.misfit.since_s + FIT_PATIENCE_S
    if pod.is_deleting and not pod.is_finished:
        frees_s = None if pod.gone_by_s is None else pod.gone_by_s + MARGIN_S
        return min((time_s for time_s in (pod.may_run_until_s, frees_s) if time_s and time_s > now_s), default=None)
    if not pod.is_finished:
        return _find_limit_s(pod, patience, due_s)
    if pod.is_deleting or pod.linger_s is None or pod.finished_s is None:
        return None
    return pod.finished_s + pod.linger_s


def is_overdue(pod: Pod, now_s: float) -> bool:
    """Whether a pod whose work is over has occupied its node for too long."""
    if not pod.is_finished or pod.linger_s is None or pod.is_deleting:
        return False
    return pod.finished_s is None or now_s >= pod.finished_s + pod.linger_s


def _find_limit_s(pod: Pod, patience: PodPatience, due_s: float) -> float | None:
    """Return until when the operator waits for the next step of a pod; None if it waits for none."""
    if pod.is_finished or pod.is_deleting:
        return None
    if pod.finished_s is not None:
        # At the deadline the result of the first container counts, even if helpers still run.
        return min(pod.finished_s + LINGER_S, max(due_s, pod.finished_s))
    if pod.idle_since_s is None:
        return None
    return pod.idle_since_s + (patience.mistake_s if pod.wait_reason in MISTAKES else patience.start_s)
