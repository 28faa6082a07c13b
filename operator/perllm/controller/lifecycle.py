"""The life of a task, as a pure function: (task, status, pods, now) -> what is to be done.

    Pending -> Scheduled -> Running -> Succeeded | Failed           Rejected: never run

Level-triggered: the answer follows from what is, not from what happened, so it may be asked at any moment, as often as
one likes, also after a crash. The highest attempt counts. A container's own failure uses up a retry; a pod that a node
refused or lost does not. What either tells of the node is judged in node_health.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from perllm.api.report import RunReport
from perllm.api.task import OnDeadlineMissed
from perllm.api.task_status import Condition, ConditionType, EnergyQuality, Observation, Phase, Result, TaskStatus
from perllm.cluster.pod import Pod, PodPhase
from perllm.controller.conditions import TURN, Note, set_condition
from perllm.controller.task import Task
from perllm.placement.decision import Decision, RecordError, read_record

DEADLINE_EXCEEDED = "DeadlineExceeded"

STOPPED = ("Evicted", "Preempting")
"""Reasons of pods that their node stopped for the sake of others."""

MAX_REFUSALS = 10
"""Pods of one task that nodes may refuse or lose before the task is given up."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about a task now.

    Attributes:
        status: the status it should have.
        attempt: number of the pod that it should get when its turn comes; None when it needs none.
        doomed: pods to delete.
        finished: the pod that ended the task, once it has.
        expire_in_s: seconds until the task itself is to be deleted; None to keep it.
    """

    status: TaskStatus
    attempt: int | None = None
    doomed: tuple[Pod, ...] = ()
    finished: Pod | None = None
    expire_in_s: float | None = None


def advance(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float, note: Note = TURN) -> Step:
    """Return the next step of a task; `note` says why it has no pod, if it has none."""
    if task.spec is None:
        return Step(status if status.phase.is_final else reject(task, status, "InvalidSpec", task.problem, now_s))
    if not status.phase.is_final:
        step = _go_on(task, status, pods, now_s)
        if step.attempt is not None:
            return replace(step, status=explain_wait(task, step.status, note, now_s))
        if not step.status.phase.is_final:
            return step
        status = step.status
    return _keep(task, status, pods, now_s)


def reject(task: Task, status: TaskStatus, reason: str, message: str, now_s: float) -> TaskStatus:
    """Return the status of a task that is refused without running it."""
    conditions = _set(task, status, ConditionType.ACCEPTED, False, reason, message, now_s).conditions
    rejected = status.model_copy(update={"conditions": conditions, "received_time": _time(task.received_s)})
    return _end(task, rejected, Phase.REJECTED, reason, message, now_s)


def explain_wait(task: Task, status: TaskStatus, note: Note, now_s: float) -> TaskStatus:
    """Return the status of a task that has no pod, with the reason."""
    status = _set(task, status, ConditionType.SCHEDULED, False, note.reason, note.message, now_s)
    return status.model_copy(update={"message": note.message})


def read_decision(pod: Pod) -> Decision | None:
    """Return the decision that bound a pod; None when it carries none that can be read, or one of another pod."""
    if pod.decision_record is None:
        return None
    try:
        decision = read_record(pod.decision_record)
    except RecordError:
        return None
    return decision if (decision.task_id, decision.node) == (pod.task_uid, pod.node) else None


def is_refusal(pod: Pod) -> bool:
    """Whether a failed pod never got to run, or was stopped from outside: no verdict on task or node."""
    stopped = pod.is_deleting or pod.is_disrupted or pod.reason in STOPPED
    return is_lost(pod) or (pod.phase is PodPhase.FAILED and stopped)


def is_lost(pod: Pod) -> bool:
    """Whether a failed pod never got to run, or nobody knows how its container ended."""
    return pod.phase is PodPhase.FAILED and pod.exit_code is None


def is_ended_at_deadline(status: TaskStatus) -> bool:
    """Whether a task was ended because its deadline had passed."""
    return any(one.type == ConditionType.COMPLETED and one.reason == DEADLINE_EXCEEDED for one in status.conditions)


def _go_on(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float) -> Step:
    """Return the next step of a task that has not ended."""
    status = _accept(task, status, now_s)
    current = max(pods, key=lambda pod: pod.attempt, default=None)
    attempts = max(status.attempts, current.attempt if current else 0)
    status = status.model_copy(update={"attempts": attempts})
    if current is not None and status.pod_name not in (None, current.name):
        status = _unplace(status)
    if current is not None and current.phase is PodPhase.SUCCEEDED:
        return Step(_succeed(task, status, current, now_s))
    if now_s >= task.due_s:
        status = _miss_deadline(task, status, now_s)
        if task.valid_spec.on_deadline_missed is OnDeadlineMissed.TERMINATE:
            message = f"not complete by its deadline of {task.valid_spec.deadline}; onDeadlineMissed is Terminate"
            return Step(_end(task, status, Phase.FAILED, DEADLINE_EXCEEDED, message, now_s))
    if current is None or (current.is_deleting and not current.is_finished):
        return _want_pod(task, status, pods, attempts + 1, now_s)
    if current.phase is PodPhase.FAILED:
        return _retry(task, status, pods, current, now_s)
    return Step(_progress(task, status, current, now_s))


def _keep(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float) -> Step:
    ttl_s = task.valid_spec.ttl_after_finished_s
    ended_s = status.completion_time.timestamp() if status.completion_time else now_s
    doomed = tuple(pod for pod in pods if not pod.is_finished and not pod.is_deleting)
    ran = next((pod for pod in pods if pod.phase is PodPhase.SUCCEEDED and pod.name == status.pod_name), None)
    finished = ran if status.phase is Phase.SUCCEEDED else None
    observed = status.observed
    if observed is not None and observed.energy_quality is None and finished is None:
        # Without the pod nobody can tell any more when and where it ran.
        observed = observed.model_copy(update={"energy_quality": EnergyQuality.MISSING})
        status = status.model_copy(update={"observed": observed})
    if status.result is None:
        # A task that was ended at its deadline may still tell how far it came.
        last = next((pod for pod in pods if pod.is_finished and pod.name == status.pod_name), None)
        status = status.model_copy(update={"result": _read_result(last)})
    return Step(
        status, doomed=doomed, finished=finished, expire_in_s=None if ttl_s is None else ended_s + ttl_s - now_s
    )


def _accept(task: Task, status: TaskStatus, now_s: float) -> TaskStatus:
    status = status.model_copy(update={"observed_generation": task.generation, "received_time": _time(task.received_s)})
    return _set(task, status, ConditionType.ACCEPTED, True, "Accepted", "", now_s)


def _want_pod(task: Task, status: TaskStatus, pods: Sequence[Pod], attempt: int, now_s: float) -> Step:
    lost = attempt - 1 - sum(1 for pod in pods if pod.phase is PodPhase.FAILED and not is_refusal(pod))
    if lost > MAX_REFUSALS:
        message = f"{lost} pods were refused or lost by their nodes; see the events of the pods"
        return Step(_end(task, status, Phase.FAILED, "TooManyRefusals", message, now_s))
    return Step(_unplace(status).model_copy(update={"phase": Phase.PENDING}), attempt=attempt)


def _retry(task: Task, status: TaskStatus, pods: Sequence[Pod], current: Pod, now_s: float) -> Step:
    failures = sum(1 for pod in pods if pod.phase is PodPhase.FAILED and not is_refusal(pod))
    if is_refusal(current) or failures <= task.valid_spec.retries:
        return _want_pod(task, status, pods, status.attempts + 1, now_s)
    code = f" with exit code {current.exit_code}" if current.exit_code is not None else ""
    problem = current.report.problem if current.report else None
    message = f"pod {current.name} failed{code}: {problem or current.message or current.reason}".rstrip(": ")
    return Step(_end(task, _place(task, status, current, now_s), Phase.FAILED, "PodFailed", message, now_s))


def _progress(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    status = status.model_copy(update={"pod_name": pod.name})
    if pod.node is None:
        status = _set(task, status, ConditionType.SCHEDULED, False, "Waiting", "waiting for a node", now_s)
        return status.model_copy(update={"phase": Phase.PENDING, "message": "waiting for a node"})
    status = _place(task, status, pod, now_s)
    if pod.phase is PodPhase.RUNNING:
        started = _time(pod.started_s) if pod.started_s else None
        return status.model_copy(
            update={"phase": Phase.RUNNING, "message": None, "start_time": status.start_time or started}
        )
    return status.model_copy(update={"phase": Phase.SCHEDULED, "message": "the pod is starting"})


def _unplace(status: TaskStatus) -> TaskStatus:
    """Forget where an earlier attempt was placed."""
    fields = ("pod_name", "node_name", "tier", "gpu_type", "start_time", "decision")
    return status.model_copy(update=dict.fromkeys(fields))


def _place(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    """Note where the task was placed, and why."""
    if status.node_name == pod.node and status.pod_name == pod.name and status.decision is not None:
        return status
    decision = read_decision(pod)
    status = status.model_copy(update={"node_name": pod.node, "pod_name": pod.name})
    if decision is not None:
        status = status.model_copy(
            update={
                "tier": decision.tier,
                "gpu_type": decision.gpu_type,
                "decision": decision.to_status(task.received_s),
            }
        )
    reason = decision.reason if decision else "bound without a decision of PerLLM"
    status = _set(task, status, ConditionType.SCHEDULED, True, "Placed", reason, now_s)
    fresh = decision is not None and decision.metrics_age_s is not None
    return _set(
        task,
        status,
        ConditionType.METRICS_AVAILABLE,
        fresh,
        "MetricsFresh" if fresh else "MetricsMissing",
        "" if fresh else "placed without current metrics of the node; learned estimates and defaults were used",
        now_s,
    )


def _succeed(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    status = _place(task, status, pod, now_s)
    finished_s = finish_time_s(pod, now_s)
    latency_s = finished_s - task.received_s
    met = latency_s <= task.valid_spec.deadline_s
    report = pod.report or RunReport()
    started_s = start_time_s(pod)
    observed = Observation(
        queue=max(started_s - task.received_s, 0.0) if started_s else None,
        transfer=report.transfer_seconds,
        inference=report.inference_seconds,
        time_to_first_token=report.time_to_first_token_seconds,
        latency=latency_s,
        prompt_tokens=report.prompt_tokens,
        tokens=report.output_tokens,
        token_source=report.token_source,
    )
    status = status.model_copy(
        update={
            "phase": Phase.SUCCEEDED,
            "message": None,
            "start_time": _time(started_s) if started_s else status.start_time,
            "completion_time": _time(finished_s),
            "observed": observed,
            "deadline_met": met,
        }
    )
    status = _set(task, status, ConditionType.COMPLETED, True, "Succeeded", "", now_s)
    verdict = f"{latency_s:.2f} s of {task.valid_spec.deadline_s:g} s"
    return _set(task, status, ConditionType.DEADLINE_MET, met, "Met" if met else "Missed", verdict, now_s)


def _read_result(pod: Pod | None) -> Result | None:
    report = pod.report if pod else None
    if report is None or (report.text is None and report.result is None):
        return None
    return Result(text=report.text, truncated=report.truncated, location=report.result)


def start_time_s(pod: Pod) -> float | None:
    """Return when a pod's container started, as precisely as known."""
    precise_s = pod.report.started_at.timestamp() if pod.report and pod.report.started_at else None
    if precise_s is None or pod.started_s is None:
        return precise_s or pod.started_s
    return precise_s if _agree(precise_s, pod.started_s) else pod.started_s


def finish_time_s(pod: Pod, now_s: float) -> float:
    """Return when a pod finished, as precisely as known.

    The container's own report counts if it agrees with Kubernetes' time, which has a resolution of one second.
    """
    coarse_s = pod.finished_s if pod.finished_s is not None else now_s
    if pod.report and pod.report.finished_at:
        precise_s = pod.report.finished_at.timestamp()
        if _agree(precise_s, coarse_s):
            return precise_s
    return min(coarse_s + 1.0, max(now_s, coarse_s))


def _agree(precise_s: float, coarse_s: float) -> bool:
    """Whether a workload's clock may be trusted beside Kubernetes' time of the same moment."""
    return coarse_s - 1.0 <= precise_s <= coarse_s + 2.0


def _miss_deadline(task: Task, status: TaskStatus, now_s: float) -> TaskStatus:
    return _set(
        task, status.model_copy(update={"deadline_met": False}), ConditionType.DEADLINE_MET, False, "Missed", "", now_s
    )


def _end(task: Task, status: TaskStatus, phase: Phase, reason: str, message: str, now_s: float) -> TaskStatus:
    ended = status.model_copy(
        update={
            "observed_generation": task.generation,
            "phase": phase,
            "message": message,
            "completion_time": _time(now_s),
            "deadline_met": False,
        }
    )
    ended = _set(task, ended, ConditionType.COMPLETED, False, reason, message, now_s)
    return _set(task, ended, ConditionType.DEADLINE_MET, False, reason, message, now_s)


def _set(
    task: Task, status: TaskStatus, kind: ConditionType, value: bool | None, reason: str, message: str, now_s: float
) -> TaskStatus:
    conditions: tuple[Condition, ...] = set_condition(
        status.conditions, kind, value, reason, message, generation=task.generation, now_s=now_s
    )
    return status.model_copy(update={"conditions": conditions})


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
