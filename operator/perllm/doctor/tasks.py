"""Whether tasks move."""

from collections.abc import Iterator, Sequence

from perllm.api.task_status import Phase
from perllm.cluster.client import Object
from perllm.cluster.times import parse_time_s
from perllm.doctor.finding import Finding, fail, name_some, ok, warn

TASKS = "tasks"
TASK_PODS = "pods of tasks"

UNSEEN_S = 30.0
LONG_S = 300.0


def check_tasks(items: Sequence[Object], now_s: float) -> Iterator[Finding]:
    """Judge all tasks of the namespaces served."""
    unseen = [_name(one) for one in items if not _phase(one) and _age_s(one, now_s) > UNSEEN_S]
    waiting = [one for one in items if _phase(one) == Phase.PENDING and _age_s(one, now_s) > LONG_S]
    if unseen:
        advice = "does the operator run, and serve their namespace (config.namespaces)?"
        yield fail(TASKS, f"nobody has taken notice of {name_some(unseen)}", advice)
    if waiting:
        oldest = min(waiting, key=lambda one: str(one["metadata"]["creationTimestamp"]))
        message = str(oldest["status"].get("message") or "no reason told")
        advice = f"kubectl describe llmtask {oldest['metadata']['name']} -n {oldest['metadata']['namespace']}"
        yield warn(TASKS, f"{len(waiting)} wait for minutes, {_name(oldest)} the longest: {message}", advice)
    if not unseen and not waiting:
        yield ok(TASKS, f"{len(items)}, none waits for long")


def check_task_pods(items: Sequence[Object], scheduler_name: str, now_s: float) -> Iterator[Finding]:
    """Judge all pods of tasks."""
    stuck = [one for one in items if not one["spec"].get("nodeName") and _age_s(one, now_s) > UNSEEN_S]
    unscheduled = [_name(one) for one in stuck if _scheduling(one) is None]
    refused = [one for one in stuck if _scheduling(one) is not None]
    broken = [(one, why) for one in items if (why := _trouble(one)) and _age_s(one, now_s) > UNSEEN_S]
    if unscheduled:
        message = f"no kube-scheduler has tried to schedule {name_some(unscheduled)}"
        advice = f"does one run with the profile {scheduler_name}? See the log of PerLLM's container scheduler"
        yield fail(TASK_PODS, message, advice)
    if refused:
        first = refused[0]
        yield warn(
            TASK_PODS, f"{len(refused)} find no node, such as {_name(first)}: {_scheduling(first)}", _look(first)
        )
    if broken:
        first, why = broken[0]
        yield warn(TASK_PODS, f"{len(broken)} do not start, such as {_name(first)}: {why}", _look(first))
    if not stuck and not broken:
        yield ok(TASK_PODS, f"{len(items)}, all are scheduled and start")


def _scheduling(pod: Object) -> str | None:
    """Return what kube-scheduler says of a pod without a node; None if it has said nothing."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((str(one.get("message") or "") for one in conditions if one["type"] == "PodScheduled"), None)


def _trouble(pod: Object) -> str:
    """Return why no container of a pod starts; empty if one does, or no reason is known."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return ", ".join(str(waiting[key]) for key in ("reason", "message") if waiting.get(key))
    return ""


def _look(pod: Object) -> str:
    return f"kubectl describe pod {pod['metadata']['name']} -n {pod['metadata']['namespace']}"


def _phase(task: Object) -> str:
    return str((task.get("status") or {}).get("phase") or "")


def _age_s(item: Object, now_s: float) -> float:
    return now_s - (parse_time_s(item["metadata"]["creationTimestamp"]) or now_s)


def _name(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
