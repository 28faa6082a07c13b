"""A served task's attempt, in the form of the pod that it does not need.

A request to a model server has the life of a pod: it is placed, runs, succeeds, fails, or is lost with its node. So
everything that follows pods follows requests as well, and only what creates and deletes pods has to distinguish them.

    Answered      succeeded
    Failed        failed by itself, which counts against the task's retries
    Unavailable   refused by the node: no model server there accepted it
"""

from dataclasses import replace

from pydantic import ValidationError

from perllm.api import names
from perllm.api.base import MAX_TOKENS
from perllm.api.report import MAX_RUN_S, RunReport
from perllm.api.served_run import RunEnd, ServedRun
from perllm.api.task_status import Result, RunsAs, TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, PodPhase, Timing
from perllm.cluster.pod_ends import AGENT_LOST
from perllm.cluster.shapes import as_object
from perllm.controller.task import Task
from perllm.placement.decision import Decision

UNAVAILABLE = "ServerUnavailable"

_ENDS: dict[RunEnd, tuple[PodPhase, int | None, str]] = {
    RunEnd.ANSWERED: (PodPhase.SUCCEEDED, 0, ""),
    RunEnd.FAILED: (PodPhase.FAILED, 1, ""),
    RunEnd.UNAVAILABLE: (PodPhase.FAILED, None, UNAVAILABLE),
}
"""Phase, exit code and reason of a pod that ends like that."""


def begin_run(task: Task, attempt: int, decision: Decision) -> Pod:
    """Return an attempt that was just decided."""
    return _build_run(task, attempt, decision.node, decision.to_record(), decision.decided_s)


def read_run(task: Task, status: TaskStatus) -> Pod | None:
    """Return the attempt that a status describes; None if there is none on a model server."""
    if status.runs_as is not RunsAs.REQUEST or status.node_name is None or not status.attempts:
        return None
    started_s = status.start_time.timestamp() if status.start_time else task.received_s
    pod = _build_run(task, status.attempts, status.node_name, status.decision_record, started_s)
    is_current = status.run is not None and status.run.attempt == status.attempts
    return end_run(pod, status.run) if status.run is not None and is_current else pod


def end_run(pod: Pod, run: ServedRun) -> Pod:
    """Return an attempt as its agent reports it, without figures that cannot be: it has ended in any case."""
    phase, exit_code, reason = _ENDS[run.end]
    started_s, finished_s = run.start_time.timestamp(), run.end_time.timestamp()
    report = RunReport(
        started_at=run.start_time,
        finished_at=run.end_time,
        inference_seconds=_bound_s(max(finished_s - started_s, 0.0)),
        prompt_tokens=run.prompt_tokens,
        output_tokens=run.tokens,
        token_source=run.token_source,
        time_to_first_token_seconds=_bound_s(run.time_to_first_token),
        prompts=min(run.prompts.total, MAX_TOKENS) if run.prompts else None,
    )
    return replace(
        pod,
        phase=phase,
        reason=reason,
        message=run.problem or "",
        exit_code=exit_code,
        started_s=started_s,
        finished_s=finished_s,
        report=report,
        retry_after_s=run.retry_after or 0.0,
    )


def _bound_s(seconds: float | None) -> float | None:
    """Return a duration; None for one that no report may have."""
    return seconds if seconds is not None and 0.0 <= seconds <= MAX_RUN_S else None


def lose_run(pod: Pod) -> Pod:
    """Return an attempt whose agent does not answer any more."""
    message = "the agent of the node has not renewed its Lease"
    return replace(pod, phase=PodPhase.FAILED, reason=AGENT_LOST, message=message, exit_code=None)


def adopt_report(status: TaskStatus, item: Object) -> TaskStatus:
    """Return the status with what the agent has written into that of the stored task; the same if that is nothing new.

    Another attempt than the current one, and anything after the end, is ignored.
    """
    report = _read_report(item)
    if report is None or not _is_awaited(status, report[0]) or report[0] == status.run:
        return status
    run, result = report
    return status.model_copy(update={"run": run, "result": result})


def is_late_report(status: TaskStatus, item: Object) -> bool:
    """Whether a stored task has a report of an attempt that was ended or replaced before the report was seen."""
    report = _read_report(item)
    return report is not None and not _is_awaited(status, report[0]) and report[0] != status.run


def _read_report(item: Object) -> tuple[ServedRun, Result | None] | None:
    """Return what an agent has written into the status of a stored task."""
    stored = as_object(item.get("status"))
    if not stored.get("run"):
        return None
    try:
        run = ServedRun.model_validate(stored["run"])
        return run, Result.model_validate(stored["result"]) if stored.get("result") else None
    except ValidationError:
        return None


def _is_awaited(status: TaskStatus, run: ServedRun) -> bool:
    is_current = status.runs_as is RunsAs.REQUEST and run.attempt == status.attempts
    return is_current and not status.phase.is_final


def _build_run(task: Task, attempt: int, node: str, record: str | None, started_s: float) -> Pod:
    name = names.pod_name(task.name, attempt)
    return Pod(
        key=f"{task.namespace}/{name}",
        name=name,
        uid=f"{task.uid}/{attempt}",
        task_uid=task.uid,
        task_key=task.key,
        attempt=attempt,
        node=node,
        phase=PodPhase.RUNNING,
        is_deleting=False,
        gone_by_s=None,
        is_retained=False,
        is_disrupted=False,
        was_deleted=False,
        reason="",
        message="",
        exit_code=None,
        culprit="",
        wait_reason="",
        wait_message="",
        created_s=task.received_s,
        idle_since_s=None,
        reported_s=None,
        started_s=started_s,
        finished_s=None,
        timing=Timing.NODE,
        linger_s=None,
        report=None,
        decision_record=record,
        is_served=True,
    )
