"""Reports runs to the API server: one patch of the task's status, which holds only for the attempt that it is about."""

import logging
from functools import partial
from typing import Any

from perllm.agent.assignments import Assignment, AssignmentId
from perllm.api import names
from perllm.api.served_run import ServedRun
from perllm.api.task_status import Result
from perllm.cluster.agent_policy import is_denied_report
from perllm.cluster.client import ApiError, Client, PatchKind
from perllm.cluster.writes import Write, WriteQueue

log = logging.getLogger(__name__)

KIND = "run"


class RunReports:
    """Reports runs in the background, for as long as the API server does not answer.

    Args:
        client: the API server.
        writes: the queue for writes.
    """

    def __init__(self, client: Client, writes: WriteQueue) -> None:
        self._client = client
        self._writes = writes
        self._wanted: dict[str, AssignmentId] = {}

    def put(self, assignment: Assignment, run: ServedRun, result: Result | None) -> None:
        """Queue the report of a run; returns immediately."""
        patch = build_patch(assignment, run, result)
        self._wanted[assignment.key] = assignment.id
        self._writes.put(Write(KIND, assignment.key, partial(self._send, assignment, patch)))

    def drop(self, assignment: Assignment) -> None:
        """Drop a report that was not made yet: the task is gone, has ended, or has another attempt."""
        if self._forget(assignment):
            self._writes.drop(KIND, assignment.key)

    async def _send(self, assignment: Assignment, patch: list[dict[str, Any]]) -> None:
        if self._wanted.get(assignment.key) != assignment.id:
            return  # dropped while an earlier attempt to write it was under way
        path = names.task_status_path(*assignment.key.split("/"))
        try:
            await self._client.patch(path, patch, kind=PatchKind.JSON, fieldManager=names.AGENT_FIELD_MANAGER)
        except ApiError as error:
            if error.is_transient and not is_denied_report(error):
                raise
            # Without the server's message, which may quote the answer.
            log.info("the run of task %s was not accepted: %d %s", assignment.key, error.status, error.reason)
        self._forget(assignment)

    def _forget(self, assignment: Assignment) -> bool:
        """Return whether its report was wanted until now."""
        was_wanted = self._wanted.get(assignment.key) == assignment.id
        if was_wanted:
            del self._wanted[assignment.key]
        return was_wanted


def build_patch(assignment: Assignment, run: ServedRun, result: Result | None) -> list[dict[str, Any]]:
    """Return the JSON patch of a task's status; the API server denies it for another task or attempt."""
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": assignment.uid},
        {"op": "test", "path": "/status/attempts", "value": assignment.attempt},
        {"op": "add", "path": "/status/run", "value": run.to_object()},
    ]
    if result is not None:
        patch.append({"op": "add", "path": "/status/result", "value": result.to_object()})
    return patch
