"""How a pod ended and whose failure that is, and what the operator itself makes of a pod that will come to nothing.

A failure is the task's own if its containers ended with an error, outlived activeDeadlineSeconds or can never start as
they are written. It is nobody's, and no verdict on task or node, if the pod was refused, lost or stopped from outside.
"""

from dataclasses import dataclass, replace

from perllm.cluster.pod import DEADLINE_EXCEEDED, LINGER_S, Pod, PodPhase

START_TIMEOUT = "StartTimeout"

MISTAKES = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""Reasons of containers that cannot start on any node."""

STOPPED = ("Evicted", "Preempting")


@dataclass(frozen=True, slots=True)
class PodPatience:
    """How long pods are waited for, in seconds.

    Attributes:
        start_s: for a pod that has a node, until anything of it runs.
        mistake_s: for what a container refers to, such as a ConfigMap, to exist.
    """

    start_s: float = 300.0
    mistake_s: float = 30.0


def is_refusal(pod: Pod) -> bool:
    """Whether a failed pod never got to run, or was stopped from outside: no verdict on task or node."""
    if pod.phase is not PodPhase.FAILED or is_own_failure(pod):
        return False
    return pod.exit_code is None or pod.was_deleted or pod.is_disrupted or pod.reason in STOPPED


def is_own_failure(pod: Pod) -> bool:
    """Whether Kubernetes or the operator ended a pod for what the task itself asks for."""
    return pod.phase is PodPhase.FAILED and pod.reason in (DEADLINE_EXCEEDED, *MISTAKES)


def is_lost(pod: Pod) -> bool:
    """Whether a failed pod never got to run, or nobody knows how its container ended."""
    return pod.phase is PodPhase.FAILED and pod.exit_code is None and not is_own_failure(pod)


def call_end(pod: Pod, patience: PodPatience, due_s: float, now_s: float) -> Pod:
    """Return the pod as ended if the operator waits for it no longer, else as it is.

    Args:
        pod: a pod as it was last seen.
        patience: how long pods are waited for.
        due_s: deadline of its task, Unix time.
        now_s: Unix time.
    """
    limit_s = _find_limit_s(pod, patience, due_s)
    if limit_s is None or now_s < limit_s:
        return pod
    if pod.has_helpers_left:
        return replace(pod, phase=PodPhase.SUCCEEDED if pod.exit_code == 0 else PodPhase.FAILED)
    if pod.wait_reason in MISTAKES:
        return replace(pod, phase=PodPhase.FAILED, reason=pod.wait_reason, message=pod.wait_message)
    last = ": ".join(filter(None, (pod.wait_reason, pod.wait_message))) or "no word of its node"
    message = f"nothing of it ran within {patience.start_s:g} s; last: {last}"
    return replace(pod, phase=PodPhase.FAILED, reason=START_TIMEOUT, message=message)


def next_look_s(pod: Pod, patience: PodPatience, due_s: float) -> float | None:
    """Return the Unix time at which time alone changes what there is to do about a pod; None for never."""
    if not pod.is_finished:
        return _find_limit_s(pod, patience, due_s)
    if pod.is_deleting or pod.linger_s is None or pod.finished_s is None:
        return None
    return pod.finished_s + pod.linger_s


def is_overdue(pod: Pod, now_s: float) -> bool:
    """Whether a pod whose work is over holds its place on the node for too long."""
    if not pod.is_finished or pod.linger_s is None or pod.is_deleting:
        return False
    return pod.finished_s is None or now_s >= pod.finished_s + pod.linger_s


def _find_limit_s(pod: Pod, patience: PodPatience, due_s: float) -> float | None:
    """Return until when the next thing that has to happen to a pod is waited for; None if nothing is."""
    if pod.is_finished or pod.is_deleting:
        return None
    if pod.finished_s is not None:
        # At the deadline what the first container did counts.
        return min(pod.finished_s + LINGER_S, max(due_s, pod.finished_s))
    if pod.idle_since_s is None:
        return None
    return pod.idle_since_s + (patience.mistake_s if pod.wait_reason in MISTAKES else patience.start_s)
