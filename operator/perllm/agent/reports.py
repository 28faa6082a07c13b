"""Reports attempts to the API server: one patch of the task's status, which holds only for the attempt it is about.

What the status cannot hold is stored first, in an object of its own, which the status then names. An object that exists
already is of the same attempt: its name says so, and no other agent can have created it. After a restart an agent may
have other answers to the same prompts; those that were stored first count. That of a superseded attempt is never named
by a status, and is deleted with the task.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from perllm.agent.assignments import Assignment, AssignmentId
from perllm.agent.results import AttemptReport
from perllm.api import names
from perllm.api.owners import refer_to_task
from perllm.api.task_answer import TaskAnswer
from perllm.cluster.agent_policy import is_denied_report
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.writes import Write, WriteQueue

log = logging.getLogger(__name__)

KIND = "run"

QUOTA_EXCEEDED = "exceeded quota"
"""The API server's words if a namespace may not have more objects of a kind."""


class RunReports:
    """Reports attempts in the background, for as long as the API server does not answer.

    Args:
        client: the API server.
        writes: the queue for writes.
        now: monotonic clock, in seconds.
    """

    def __init__(self, client: Client, writes: WriteQueue, *, now: Callable[[], float]) -> None:
        self._client = client
        self._writes = writes
        self._now = now
        self._wanted: dict[str, AssignmentId] = {}
        self._since_s: dict[str, float] = {}

    @property
    def wait_s(self) -> float:
        """Seconds for which the report that has waited the longest has not been accepted; 0 if none waits."""
        return self._now() - min(self._since_s.values(), default=self._now())

    def put(self, assignment: Assignment, report: AttemptReport) -> None:
        """Queue the report of an attempt; returns immediately."""
        self._wanted[assignment.key] = assignment.id
        self._since_s[assignment.key] = self._now()
        self._writes.put(Write(KIND, assignment.key, partial(self._send, assignment, report)))

    def drop(self, assignment: Assignment) -> None:
        """Drop a report that was not made yet: the task is gone, has ended, or has another attempt."""
        if self._forget(assignment):
            self._writes.drop(KIND, assignment.key)

    async def _send(self, assignment: Assignment, report: AttemptReport) -> None:
        if self._wanted.get(assignment.key) != assignment.id:
            return  # dropped while an earlier attempt to write it was in progress
        patch = build_patch(assignment, await self._store_answer(assignment, report))
        path = names.task_status_path(*assignment.key.split("/"))
        try:
            await self._client.patch(path, patch, kind=PatchKind.JSON, fieldManager=names.AGENT_FIELD_MANAGER)
        except ApiError as error:
            if error.is_conflict or (error.is_transient and not is_denied_report(error)):
                raise
            # Without the server's message, which may quote the answer.
            log.info("the run of task %s was not accepted: %d %s", assignment.key, error.status, error.reason)
        self._forget(assignment)

    async def _store_answer(self, assignment: Assignment, report: AttemptReport) -> AttemptReport:
        """Store what the status cannot hold; return what is left to report."""
        if report.answer is None or report.result is None:
            return report
        path = names.task_answers_path(assignment.key.partition("/")[0])
        body = build_answer(assignment, report.answer, report.result.answer_name)
        try:
            await self._client.post(path, body, fieldManager=names.AGENT_FIELD_MANAGER)
        except ApiError as error:
            if error.is_conflict or (error.is_transient and QUOTA_EXCEEDED not in error.message):
                raise
            if error.reason != "AlreadyExists":
                log.info("the answer of task %s was not accepted: %d %s", assignment.key, error.status, error.reason)
                return report.without_answer(f"{error.status} {error.reason}")
        return report

    def _forget(self, assignment: Assignment) -> bool:
        """Return whether its report was wanted until now."""
        was_wanted = self._wanted.get(assignment.key) == assignment.id
        if was_wanted:
            del self._wanted[assignment.key], self._since_s[assignment.key]
        return was_wanted


def build_answer(assignment: Assignment, answer: TaskAnswer, name: str | None) -> Object:
    """Return the object with what the status of a task cannot hold; it is deleted with the task."""
    namespace, _, task = assignment.key.partition("/")
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_ANSWER_KIND,
        "metadata": {"namespace": namespace, "name": name, "ownerReferences": [refer_to_task(task, assignment.uid)]},
        **answer.to_object(),
    }


def build_patch(assignment: Assignment, report: AttemptReport) -> list[dict[str, Any]]:
    """Return the JSON patch of a task's status; the API server denies it for another task or attempt."""
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": assignment.uid},
        {"op": "test", "path": "/status/attempts", "value": assignment.attempt},
        {"op": "add", "path": "/status/run", "value": report.run.to_object()},
    ]
    if report.result is not None:
        patch.append({"op": "add", "path": "/status/result", "value": report.result.to_object()})
    return patch
