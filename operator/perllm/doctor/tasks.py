"""Checks whether tasks, their pods and annotated pods make progress."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from perllm.api.task_status import ConditionType, TaskPhase
from perllm.cluster.client import Object
from perllm.cluster.times import parse_time_s
from perllm.doctor.finding import MAX_NAMED, Finding, fail, name_some, ok, warn
from perllm.scheduling.admission import NO_MODEL_SERVER
from perllm.scheduling.denial import DenialCause

TASKS = "tasks"
TASK_PODS = "pods of tasks"
ANNOTATED_PODS = "annotated pods"

UNSEEN_S = 30.0
LONG_S = 300.0

METADATA = ("namespace", "name", "creationTimestamp")
TASK_STATUS = ("phase", "message", "conditions")
POD_STATUS = ("conditions", "containerStatuses")
"""What checks need of tasks and pods."""

GATED = "SchedulingGated"
"""Reason of a pod that its owner does not let kube-scheduler place yet, as Kueue does until there is quota."""

URGENT = frozenset((*DenialCause, NO_MODEL_SERVER))
"""Reasons on which a person has to act, so tasks with these are reported immediately."""

SERVER_ADVICE = (
    "kubectl get llmservers: start a model server where an agent finds it (agent.enabled), or set "
    "config.runner.server_url if servers answer at an address of every node"
)


_STARTED: Object = {"metadata": {}, "status": {"phase": TaskPhase.RUNNING.value}}
"""Stands for all tasks that have begun to run: nothing about a single one of them matters."""

_ENDED: Object = {"metadata": {"creationTimestamp": None}, "spec": {"nodeName": "any"}}
"""Stands for all pods that have ended on a node."""


def shorten_task(item: Object) -> Object:
    """Return what `check_tasks` needs of a task."""
    if _phase(item) not in ("", TaskPhase.PENDING):
        return _STARTED
    status = item.get("status") or {}
    return {"metadata": _shorten(item["metadata"], METADATA), "status": _shorten(status, TASK_STATUS)}


def shorten_pod(item: Object) -> Object:
    """Return what `check_scheduled_pods` needs of a pod."""
    spec, status = item["spec"], item.get("status") or {}
    if spec.get("nodeName") and status.get("phase") in ("Succeeded", "Failed"):
        return _ENDED
    return {
        "metadata": _shorten(item["metadata"], METADATA),
        "spec": _shorten(spec, ("nodeName",)),
        "status": _shorten(status, POD_STATUS),
    }


def _shorten(item: Object, fields: Collection[str]) -> Object:
    return {field: item[field] for field in fields if field in item}


def check_tasks(items: Sequence[Object], now_s: float) -> Iterator[Finding]:
    """Check all tasks of the namespaces served, which may be shortened."""
    unseen = [_name(one) for one in items if not _phase(one) and _age_s(one, now_s) > UNSEEN_S]
    pending = [one for one in items if _phase(one) == TaskPhase.PENDING]
    waiting = [one for one in pending if _age_s(one, now_s) > LONG_S or _reason(one) in URGENT]
    if unseen:
        advice = "is the operator running, and does it serve their namespace (config.namespaces)?"
        yield fail(TASKS, f"no operator has picked up {name_some(unseen)}", advice)
    groups = _by_namespace(waiting)
    for namespace, group in groups[:MAX_NAMED]:
        yield _report_wait(namespace, group, now_s)
    if groups[MAX_NAMED:]:
        others = name_some([namespace for namespace, _ in groups[MAX_NAMED:]])
        yield warn(TASKS, f"tasks of {others} are waiting as well", "kubectl get llmtasks --all-namespaces")
    if not unseen and not waiting:
        yield ok(TASKS, f"{len(items)}, none has been waiting for long")


def _by_namespace(items: Sequence[Object]) -> list[tuple[str, list[Object]]]:
    """Return the tasks of each namespace, the namespace with the most tasks first."""
    groups: dict[str, list[Object]] = {}
    for item in items:
        groups.setdefault(item["metadata"]["namespace"], []).append(item)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _report_wait(namespace: str, items: Sequence[Object], now_s: float) -> Finding:
    """Report how many tasks of a namespace are waiting, for how long, and the most frequent reason."""
    ((reason, count),) = Counter(map(_reason, items)).most_common(1)
    first = max((one for one in items if _reason(one) == reason), key=lambda one: _age_s(one, now_s))
    longest_s = max(_age_s(one, now_s) for one in items)
    why = str(first["status"].get("message") or "no reason given")
    message = f"{len(items)} of namespace {namespace} are waiting, the first one for {longest_s:.0f} s"
    advice = SERVER_ADVICE if reason == NO_MODEL_SERVER else _describe(first)
    return warn(TASKS, f"{message}; {reason}: {count}, for example {_name(first)}: {why}", advice)


def _reason(task: Object) -> str:
    """Return the reason of a task's condition Scheduled."""
    conditions = (task.get("status") or {}).get("conditions") or ()
    return next((str(one.get("reason")) for one in conditions if one["type"] == ConditionType.SCHEDULED), "Waiting")


def _describe(task: Object) -> str:
    return f"kubectl describe llmtask {task['metadata']['name']} -n {task['metadata']['namespace']}"


def check_scheduled_pods(check: str, items: Sequence[Object], scheduler_name: str, now_s: float) -> Iterator[Finding]:
    """Check pods of one kind that PerLLM places, which may be shortened; those that are gated wait for their owners."""
    old = [one for one in items if _age_s(one, now_s) > UNSEEN_S and _scheduling(one).get("reason") != GATED]
    stuck = [one for one in old if not one["spec"].get("nodeName")]
    unscheduled = [_name(one) for one in stuck if not _scheduling(one)]
    unplaced = [(one, str(_scheduling(one).get("message") or "")) for one in stuck if _scheduling(one)]
    broken = [(one, why) for one in old if (why := _trouble(one))]
    if unscheduled:
        message = f"no kube-scheduler has tried to schedule {name_some(unscheduled)}"
        advice = f"is one running with the profile {scheduler_name}? Check the log of PerLLM's container scheduler"
        yield fail(check, message, advice)
    yield from _report_trouble(check, "fit no node", unplaced)
    yield from _report_trouble(check, "do not start", broken)
    if not stuck and not broken:
        yield ok(check, f"{len(items)}, all are scheduled and starting")


def _report_trouble(check: str, what: str, pods: Sequence[tuple[Object, str]]) -> Iterator[Finding]:
    """Report how many pods are in trouble for each reason, the most frequent ones first."""
    counts = Counter(why for _, why in pods).most_common()
    for reason, count in counts[:MAX_NAMED]:
        first = next(one for one, why in pods if why == reason)
        yield warn(check, f"{count} {what}, for example {_name(first)}: {reason}", _describe_pod(first))
    more = sum(count for _, count in counts[MAX_NAMED:])
    if more:
        yield warn(check, f"{more} more {what}, for other reasons", "kubectl get events --all-namespaces")


def _scheduling(pod: Object) -> Object:
    """Return what kube-scheduler says about a pod; empty if it has not looked at it."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == "PodScheduled"), {})


def _trouble(pod: Object) -> str:
    """Return why no container of a pod starts; empty if one does, or if the reason is unknown."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return ", ".join(str(waiting[key]) for key in ("reason", "message") if waiting.get(key))
    return ""


def _describe_pod(pod: Object) -> str:
    return f"kubectl describe pod {pod['metadata']['name']} -n {pod['metadata']['namespace']}"


def _phase(task: Object) -> str:
    return str((task.get("status") or {}).get("phase") or "")


def _age_s(item: Object, now_s: float) -> float:
    return now_s - (parse_time_s(item["metadata"]["creationTimestamp"]) or now_s)


def _name(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
