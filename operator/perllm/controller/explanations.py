"""Why a task waits or failed, for its status: what kube-scheduler, kubelet and the container report."""

from perllm.cluster.containers import USUAL_WAITS
from perllm.cluster.pod import Pod
from perllm.cluster.times import format_time

AWAITS_TURN = "waiting for its turn"
AWAITS_NODE = "waiting for a node"
STARTS = "the pod is starting"
USUAL_MESSAGES = (None, AWAITS_TURN, AWAITS_NODE, STARTS)
"""Messages that say no more than the phase does."""


def explain_wait(pod: Pod) -> tuple[str, str]:
    """Return reason and message for a pod that has no node."""
    return pod.wait_reason or "Waiting", _join(AWAITS_NODE, pod.wait_message)


def explain_misfit(pod: Pod) -> tuple[str, str]:
    """Return reason and message for a pod that is replaced, because it fits on none of the nodes that it names."""
    return pod.wait_reason, _join("its pod is replaced, since it fits on none of the nodes it names", pod.wait_message)


def explain_start(pod: Pod) -> str:
    """Return why a pod that has a node is not running yet."""
    reason = "" if pod.wait_reason in USUAL_WAITS else pod.wait_reason
    return _join(STARTS, reason, pod.wait_message)


def explain_doubt(pod: Pod) -> str:
    """Return why a task waits for a pod that is being deleted."""
    until = format_time(round(pod.may_run_until_s or 0.0))
    return f"node {pod.node} does not answer, and {_name(pod)} may still be running there: waiting for it until {until}"


def explain_failure(pod: Pod) -> str:
    """Return why a pod failed by itself."""
    code = f" with exit code {pod.exit_code}" if pod.exit_code and not pod.is_served else ""
    where = f" in container {pod.culprit}" if pod.culprit else ""
    problem = pod.report.problem if pod.report else None
    reason = "" if pod.reason == "Error" and pod.message else pod.reason
    words = (problem,) if problem else (reason, pod.message)
    return _join(f"{_name(pod)} failed{code}{where}", *words)


def explain_refusal(pod: Pod) -> str:
    """Return why a pod was refused or lost, which is not its own fault."""
    return _join(f"{_name(pod)} was refused or lost by node {pod.node or 'none'}", pod.reason, pod.message)


def _name(pod: Pod) -> str:
    return f"request {pod.attempt}" if pod.is_served else f"pod {pod.name}"


def _join(*words: str | None) -> str:
    return ": ".join(word for word in words if word)
