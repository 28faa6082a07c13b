"""The life of a task, as a pure function: (task, status, pods, now) -> what is to be done.

    Pending -> Scheduled -> Running -> Succeeded | Failed           Rejected: never run

Level-triggered: the answer follows from the present state, not from what happened, so the function may be called at any
time, any number of times, even after a crash. The highest attempt counts, unless an earlier one succeeds. A container's
own failure uses up a retry; a pod that a node refused or lost does not. What either says about the node is judged in
node_health.py. A pod that fits on none of the nodes that it names does not count as an attempt: once it is gone,
another one gets its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perllm.api.task import OnDeadlineMissed
from perllm.api.task_status import MAX_FAILED_ATTEMPTS, ConditionType, EnergyQuality, TaskPhase, TaskStatus
from perllm.cluster.pod import MAX_ATTEMPT, Pod, PodPhase
from perllm.cluster.pod_ends import is_overdue, is_refusal, is_to_replace
from perllm.cluster.times import to_time
from perllm.controller.conditions import Note
from perllm.controller.explanations import (
    AWAITS_TURN,
    explain_doubt,
    explain_failure,
    explain_misfit,
    explain_refusal,
    explain_start,
    explain_wait,
)
from perllm.controller.stages import (
    accept,
    end,
    find_wait,
    find_way,
    follow,
    miss_deadline,
    place,
    put_condition,
    read_result,
    succeed,
    unplace,
)
from perllm.controller.task import Task

DEADLINE_EXCEEDED = "DeadlineExceeded"

MAX_REFUSALS = 10
"""Pods of one task that nodes may refuse or lose before the task fails.

Requests are repeated until the deadline: a server that is overloaded for a while says nothing about the task.
"""

CATCH_UP_S = 15.0
"""How long after an outage kubelets and agents may take to report what ended meanwhile: both try every ten seconds."""

REPORT_S = 0.5
"""How long the report of a request that ended in time may take to be seen. Its agent ends it at the deadline itself."""

CLOSED_S = 0.02
"""How long after the deadline an agent has closed the request of a task that is to end then."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about a task now.

    Attributes:
        status: the status it should have.
        attempt: number of the pod that it should get when its turn comes; None when it needs none.
        cause: why it needs another pod after the last one; empty for the first pod.
        doomed: pods to delete.
        finished: the pod that ended the task, once it has.
        replaced: the pod whose number another one gets once it is gone.
        is_suspended: whether it may not run for now.
    """

    status: TaskStatus
    attempt: int | None = None
    cause: str = ""
    doomed: tuple[Pod, ...] = ()
    finished: Pod | None = None
    replaced: Pod | None = None
    is_suspended: bool = False


def advance(
    task: Task,
    status: TaskStatus,
    pods: Sequence[Pod],
    now_s: float,
    note: Note | None = None,
    *,
    suspension: Note | None = None,
    is_current: bool = True,
) -> Step:
    """Return the next step of a task.

    Args:
        task: the task.
        status: its status.
        pods: its pods.
        now_s: Unix time.
        note: why it has no pod, if that is known.
        suspension: why it may not run for now; None if it may.
        is_current: whether the pods are known as they are, and not as they were before an outage of the API server.
    """
    if task.spec is None:
        is_over = status.phase.is_final
        return Step(follow(task, status) if is_over else reject(task, status, "InvalidSpec", task.problem, now_s))
    if not status.phase.is_final:
        judged = find_judged(status, pods, is_suspended=suspension is not None)
        step = _go_on(task, status, judged, now_s, is_current)
        if suspension is not None and not step.status.phase.is_final:
            return _suspend(task, step.status, pods, suspension, now_s)
        if step.attempt is not None and note is not None:
            return replace(step, status=note_wait(task, step.status, note, step.cause, now_s))
        if not step.status.phase.is_final:
            return step
        status = step.status
    return _keep(task, status, pods, now_s)


def reject(task: Task, status: TaskStatus, reason: str, message: str, now_s: float) -> TaskStatus:
    """Return the status of a task that is not run (again): Rejected if it never ran, otherwise Failed."""
    rejected = unplace(status).change(received_time=to_time(task.received_s))
    for kind in (ConditionType.ACCEPTED, ConditionType.SCHEDULED):
        rejected = put_condition(task, rejected, kind, False, reason, message, now_s)
    phase = TaskPhase.FAILED if status.failed_attempts else TaskPhase.REJECTED
    return end(task, rejected, phase, reason, message, now_s)


def note_wait(task: Task, status: TaskStatus, note: Note, cause: str, now_s: float) -> TaskStatus:
    """Return the status of a task that has no pod, with the reason, and what became of its last pod."""
    message = _join(note.message, cause)
    status = put_condition(task, status, ConditionType.SCHEDULED, False, note.reason, message, now_s)
    return status.change(message=message)


def find_judged(status: TaskStatus, pods: Sequence[Pod], *, is_suspended: bool = False) -> list[Pod]:
    """Return the pods without those that were stopped because the task may not run.

    One that has succeeded counts nevertheless, and so does, once the task may run again, one that may still be running
    since its node does not answer.
    """
    stopped = status.stopped_attempts or ()
    return [
        pod
        for pod in pods
        if pod.attempt not in stopped
        or pod.phase is PodPhase.SUCCEEDED
        or (pod.may_run_until_s is not None and not is_suspended)
    ]


def is_ended_at_deadline(status: TaskStatus) -> bool:
    """Whether a task was ended because its deadline had passed."""
    return any(one.type == ConditionType.COMPLETED and one.reason == DEADLINE_EXCEEDED for one in status.conditions)


def find_end_s(status: TaskStatus, now_s: float) -> float:
    """Return when the end of a task was first seen; its time to live starts then, regardless of nodes' clocks."""
    ends = (one.last_transition_time for one in status.conditions if one.type == ConditionType.FINISHED)
    ended = next(ends, status.completion_time)
    return ended.timestamp() if ended else now_s


def find_verdict_s(task: Task, pods: Sequence[Pod]) -> float:
    """Return the Unix time from which a task that has not ended has missed its deadline."""
    is_awaited = any(pod.is_served and not pod.is_finished for pod in pods)
    return task.due_s + (REPORT_S if is_awaited else 0.0)


def may_be_in_time(pods: Sequence[Pod], *, is_current: bool) -> bool:
    """Whether a pod or request of a task may have ended in time although that is not known after its deadline."""
    return not is_current and any(pod.node is not None and not pod.is_finished for pod in pods)


def find_closed_s(task: Task, pod: Pod) -> float | None:
    """Return the Unix time at which a request has left its slot, regardless of its report; None if it may continue."""
    is_awaited = pod.is_served and not pod.is_finished and task.spec is not None
    if not is_awaited or task.valid_spec.on_deadline_missed is not OnDeadlineMissed.TERMINATE:
        return None
    return task.due_s + CLOSED_S


def _go_on(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float, is_current: bool) -> Step:
    """Return the next step of a task that has not ended."""
    status = accept(task, status, now_s)
    last = max(pods, key=lambda pod: pod.attempt, default=None)
    # An attempt that was treated as lost may still succeed.
    ran = next((pod for pod in pods if pod.phase is PodPhase.SUCCEEDED), None)
    current = ran or last
    status = _count(status, pods)
    if current is not None and status.pod_name not in (None, current.name):
        status = unplace(status)
    if ran is not None:
        return Step(succeed(task, status, ran, now_s))
    if task.is_deleting:
        return Step(end(task, status, TaskPhase.FAILED, "Deleted", "the task was deleted before it had ended", now_s))
    if now_s >= find_verdict_s(task, pods) and not may_be_in_time(pods, is_current=is_current):
        status = miss_deadline(task, status, now_s)
        if task.valid_spec.on_deadline_missed is OnDeadlineMissed.TERMINATE:
            message = f"not complete by its deadline of {task.valid_spec.deadline}; onDeadlineMissed is Terminate"
            return Step(end(task, status, TaskPhase.FAILED, DEADLINE_EXCEEDED, message, now_s))
    if current is not None and is_to_replace(current, now_s):
        return _replace(task, status, current, now_s)
    if current is None or (current.is_deleting and not current.is_finished):
        if current is not None and current.may_run_until_s is not None:
            return Step(_doubt(task, status, current, now_s))
        return _want_pod(task, status, pods, now_s)
    if current.phase is PodPhase.FAILED:
        return _retry(task, status, pods, current, now_s)
    return Step(_progress(task, status, current, now_s))


def _keep(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float) -> Step:
    doomed = [pod for pod in pods if not pod.is_finished and not pod.is_deleting]
    ran = next((pod for pod in pods if pod.phase is PodPhase.SUCCEEDED and pod.name == status.pod_name), None)
    finished = ran if status.phase is TaskPhase.SUCCEEDED else None
    update: dict[str, object] = {}
    observed = status.observed
    if observed is not None and observed.energy_quality is None and finished is None:
        # Without the pod it is no longer known when and where the task ran.
        update["observed"] = observed.change(energy_quality=EnergyQuality.MISSING)
    if status.result is None:
        # A task that was ended at its deadline may still report how far it got.
        last = next((pod for pod in pods if pod.is_finished and pod.name == status.pod_name), None)
        update["result"] = read_result(last)
    status = follow(task, status).change(**update)
    return Step(status, doomed=(*doomed, *_overdue(pods, now_s)), finished=finished)


def _overdue(pods: Sequence[Pod], now_s: float) -> tuple[Pod, ...]:
    return tuple(pod for pod in pods if is_overdue(pod, now_s))


def _count(status: TaskStatus, pods: Sequence[Pod]) -> TaskStatus:
    """Count attempts and failures; both are kept in the status, since pods may be gone before the task ends."""
    attempts = max((pod.attempt for pod in pods), default=0)
    failed = {pod.attempt for pod in pods if pod.phase is PodPhase.FAILED and not is_refusal(pod)}
    failed.update(status.failed_attempts or ())
    return status.change(
        attempts=max(status.attempts, attempts),
        failed_attempts=tuple(sorted(failed))[:MAX_FAILED_ATTEMPTS] or None,
    )


def _want_pod(task: Task, status: TaskStatus, pods: Sequence[Pod], now_s: float, cause: str = "") -> Step:
    """Return the step of a task that needs a pod; `cause` is why it needs another one."""
    is_tried_until_due = task.valid_spec.is_served and now_s < task.due_s
    if status.attempts >= MAX_ATTEMPT and not is_tried_until_due:
        message = f"it has had {status.attempts} attempts, and no more are made"
        return Step(end(task, status, TaskPhase.FAILED, "TooManyAttempts", message, now_s))
    lost = _count_lost(status)
    if lost > MAX_REFUSALS and not is_tried_until_due:
        attempts = "requests" if task.valid_spec.is_served else "pods"
        message = f"{lost} {attempts} were refused or lost by their nodes" + (f"; last: {cause}" if cause else "")
        return Step(end(task, status, TaskPhase.FAILED, "TooManyRefusals", message, now_s))
    message = _join(AWAITS_TURN, cause)
    waiting = unplace(status).change(phase=TaskPhase.PENDING, message=message)
    waiting = put_condition(task, waiting, ConditionType.SCHEDULED, False, "Waiting", message, now_s)
    return Step(waiting, attempt=status.attempts + 1, cause=cause, doomed=_overdue(pods, now_s))


def _count_lost(status: TaskStatus) -> int:
    """Return how many attempts nodes refused or lost.

    Of stopped ones the last are known; if there may have been others, nothing before these counts any more.
    """
    stopped = status.stopped_attempts or ()
    first = stopped[0] if len(stopped) == MAX_FAILED_ATTEMPTS else 1
    known = [one for one in (*(status.failed_attempts or ()), *stopped) if one >= first]
    return status.attempts - (first - 1) - len(known)


def _replace(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> Step:
    """Return the step of a task whose pod fits on none of the nodes that it names."""
    reason, message = explain_misfit(pod)
    status = unplace(status).change(phase=TaskPhase.PENDING, attempts=pod.attempt - 1, message=message)
    status = put_condition(task, status, ConditionType.SCHEDULED, False, reason, message, now_s)
    return Step(status, doomed=() if pod.is_deleting else (pod,), replaced=pod)


def _suspend(task: Task, status: TaskStatus, pods: Sequence[Pod], suspension: Note, now_s: float) -> Step:
    """Return the step of a task that may not run: its running attempt is stopped, and does not count."""
    running = [pod for pod in pods if not pod.is_finished]
    # The number of a pod that is being replaced is not counted, and will be that of another one.
    counted = {pod.attempt for pod in running if pod.attempt <= status.attempts}
    stopped = counted.union(status.stopped_attempts or ())
    waiting = unplace(status).change(
        phase=TaskPhase.PENDING, stopped_attempts=tuple(sorted(stopped))[-MAX_FAILED_ATTEMPTS:] or None
    )
    doomed = (*(pod for pod in running if not pod.is_deleting), *_overdue(pods, now_s))
    return Step(note_wait(task, waiting, suspension, "", now_s), doomed=doomed, is_suspended=True)


def _join(message: str, cause: str) -> str:
    return f"{message}; {cause}" if cause else message


def _retry(task: Task, status: TaskStatus, pods: Sequence[Pod], current: Pod, now_s: float) -> Step:
    if is_refusal(current):
        return _want_pod(task, status, pods, now_s, explain_refusal(current))
    message = explain_failure(current)
    if len(status.failed_attempts or ()) <= task.valid_spec.retries:
        return _want_pod(task, status, pods, now_s, message)
    return Step(end(task, place(task, status, current, now_s), TaskPhase.FAILED, "PodFailed", message, now_s))


def _doubt(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    """Return the status of a task whose pod is being deleted, but may still be running."""
    return _progress(task, status, pod, now_s).change(message=explain_doubt(pod))


def _progress(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    status = status.change(pod_name=pod.name, runs_as=find_way(pod))
    if pod.node is None:
        reason, message = explain_wait(pod)
        if pod.wait_message or find_wait(status) is None:
            # Without a message, kube-scheduler has just received the pod; what the task waited for until now remains.
            status = put_condition(task, status, ConditionType.SCHEDULED, False, reason, message, now_s)
        return status.change(phase=TaskPhase.PENDING, message=message)
    status = place(task, status, pod, now_s)
    if pod.phase is PodPhase.RUNNING:
        started = to_time(pod.started_s) if pod.started_s else None
        return status.change(phase=TaskPhase.RUNNING, message=None, start_time=status.start_time or started)
    return status.change(phase=TaskPhase.SCHEDULED, message=explain_start(pod))
