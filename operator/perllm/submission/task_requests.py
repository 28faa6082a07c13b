"""The requests about single tasks of a batch: to create one, to delete it, and to read the whole of its answer."""

import asyncio
from collections.abc import Callable
from random import Random

from pydantic import ValidationError

from perllm.api import names
from perllm.api.task_answer import TaskAnswer
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, Client
from perllm.submission.answers import AnswerLine
from perllm.submission.batch import Batch, BatchTask
from perllm.text import error_line

READ_AGAIN = Backoff(first_s=0.5, limit_s=10.0)
MAX_FAULTS = 8
"""Failures after which an object that the API server has a fault with is left: the answers of others wait for it."""

DENIED = (401, 403)
QUOTA_EXCEEDED = "exceeded quota"
"""The API server's words if a namespace may not have more objects of a kind for now."""


class TaskRequests:
    """Makes requests about the tasks of a batch. An error that a retry may mend is raised, for the write queue.

    Args:
        client: the API server.
        batch: the tasks.
        notify: called with what the user should know.
        fail: called with why the submission cannot go on.
        rng: jitter of pauses.
    """

    def __init__(
        self,
        client: Client,
        batch: Batch,
        *,
        notify: Callable[[str], None],
        fail: Callable[[str], None],
        rng: Random,
    ) -> None:
        self._client = client
        self._batch = batch
        self._notify = notify
        self._fail = fail
        self._rng = rng
        self._may_create = False

    async def create(self, task: BatchTask) -> None:
        """Create a task, or adopt the one of its name.

        Raises:
            ApiError: a retry may succeed.
        """
        try:
            await self._client.post(names.tasks_path(self._batch.namespace), self._batch.to_object(task))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await self._adopt(task)
            elif self._is_lasting(error):
                self._fail(f"task {task.name} cannot be created: {error}")
            else:
                raise
        else:
            self._may_create = True

    async def delete(self, name: str, uid: str) -> None:
        """Delete a task whose line is written.

        Raises:
            ApiError: a retry may succeed.
        """
        try:
            await self._client.delete(names.task_path(self._batch.namespace, name), {"preconditions": {"uid": uid}})
        except ApiError as error:
            if error.status in (404, 409):
                return  # it is gone, or another one
            if error.is_transient and error.status not in DENIED:
                raise
            self._fail(f"task {name} cannot be deleted, though its answer is written: {error}")

    async def complete(self, line: AnswerLine, answer_name: str | None) -> AnswerLine:
        """Return a line with the whole text, or as it is if that cannot be read.

        Args:
            line: has the text as far as the status of the task holds it.
            answer_name: name of the object with the whole text; None if the line has it.
        """
        failures = 0
        while answer_name is not None:
            try:
                item = await self._client.get(names.task_answer_path(self._batch.namespace, answer_name))
                return line.with_whole(TaskAnswer.model_validate(item))
            except (ApiError, ValidationError) as error:
                if not isinstance(error, ApiError) or _is_given_up(error, failures):
                    self._notify(f"the whole answer of task {line.task} cannot be read: {error_line(error)}")
                    break
            failures += 1
            await asyncio.sleep(READ_AGAIN.pause_s(failures, self._rng))
        return line

    def _is_lasting(self, error: ApiError) -> bool:
        """Whether a retry is pointless. A right that was there before may come back; a quota becomes free again."""
        if error.status in DENIED:
            return not self._may_create and QUOTA_EXCEEDED not in error.message
        return not error.is_transient and error.status != 409

    async def _adopt(self, task: BatchTask) -> None:
        """Accept the existing task of this name if it is of this batch; the watch then checks what it asks."""
        item = await self._client.get(names.task_path(self._batch.namespace, task.name))
        labels = item["metadata"].get("labels") or {}
        if labels.get(names.BATCH_LABEL) != self._batch.name:
            self._fail(explain_conflict(self._batch, task.name))


def _is_given_up(error: ApiError, failures: int) -> bool:
    """Whether an answer is not read again after this error, and so many before it."""
    is_faulty = error.status == 500 and failures >= MAX_FAULTS
    return is_faulty or not error.is_transient or error.status in DENIED


def explain_conflict(batch: Batch, name: str) -> str:
    """Return what to do about a task that has the name of one of the batch, and is another."""
    at = f"{batch.namespace}/{name}"
    return f"task {at} exists and is not of this batch, or asks something else: delete it, or use another --name"
