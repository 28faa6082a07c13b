"""Creates the tasks of a batch, a bounded number at a time, and writes the answers as they come.

All state is on the API server and in the output, so an interrupted submission continues when it is repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from pydantic import ValidationError

from perllm.api import names
from perllm.api.task_answer import TaskAnswer
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.informer import Informer
from perllm.cluster.outages import Outages
from perllm.cluster.writes import Write, WriteQueue
from perllm.guard import Guard
from perllm.submission.answers import AnswerLine, Tally, build_line_of_deleted
from perllm.submission.batch import Batch, BatchTask
from perllm.submission.output import Output
from perllm.submission.task_state import TaskState, read_state
from perllm.text import error_line

PROGRESS_S = 5.0
READ_AGAIN = Backoff(first_s=0.5, limit_s=10.0)
DENIED = (401, 403)


class SubmissionError(Exception):
    """The submission cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """A task that has finished: its line, its uid, and the name of the object with the whole text of the line."""

    line: AnswerLine
    uid: str
    answer_name: str | None


class Submission:
    """Gets the missing answers of a batch.

    Args:
        client: the API server.
        batch: the tasks.
        output: has the lines of earlier calls, and takes further ones.
        window: maximum number of unfinished tasks.
        deletes: whether a task is deleted once its line is written.
        report: called with progress.
        rng: jitter of pauses.

    Attributes:
        batch: the tasks.
        tally: how the prompts ended that have a line.
    """

    def __init__(
        self,
        client: Client,
        batch: Batch,
        output: Output,
        *,
        window: int,
        deletes: bool,
        report: Callable[[str], None],
        rng: Random,
    ) -> None:
        self.batch = batch
        self.tally = Tally.of(output.lines)
        loop = asyncio.get_running_loop()
        guard, outages = Guard(lambda _: None, rng), Outages(loop.time)
        self._client = client
        self._output = output
        self._window = window
        self._deletes = deletes
        self._notify = report
        self._rng = rng
        written = {line.task for line in output.lines}
        self._missing = {task.name: task for task in batch.tasks if task.name not in written}
        self._known: set[str] = set()
        self._unfinished: set[str] = set()
        self._room = asyncio.Event()
        self._due: asyncio.Queue[_Finished] = asyncio.Queue()
        self._failure: asyncio.Future[SubmissionError] = loop.create_future()
        self._may_create = False
        self._writes = WriteQueue(guard, outages, rng)
        self._informer = Informer(
            client,
            names.tasks_path(batch.namespace),
            self._read,
            self._note_change,
            kind="task",
            query={"labelSelector": batch.selector},
            guard=guard,
            outages=outages,
            rng=rng,
        )

    @property
    def unfinished(self) -> int:
        """Number of tasks that were created and have not finished, as far as it is known."""
        return len(self._unfinished)

    async def run(self) -> None:
        """Return when every prompt has its line.

        Raises:
            ApiError: tasks cannot be listed.
            SubmissionError: it cannot go on.
            OSError: a line could not be written.
        """
        if not self._missing:
            return
        # The informer would try again for ever, also with a wrong address or without rights.
        await self._client.get(names.tasks_path(self.batch.namespace), labelSelector=self.batch.selector, limit="1")
        jobs = (
            self._informer.run(),
            self._writes.run(),
            self._create_missing(),
            self._report_progress(),
            self._raise_failure(),
        )
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(job) for job in jobs]
                await self._gather()
                await self._writes.drain()
                for job in running:
                    job.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def cancel(self) -> int:
        """Delete the tasks that have not finished; return how many could not be deleted."""
        paths = [names.task_path(self.batch.namespace, name) for name in self._unfinished]
        results = await asyncio.gather(*map(self._client.delete, paths), return_exceptions=True)
        failures = [one for one in results if isinstance(one, BaseException)]
        return sum(not (isinstance(one, ApiError) and one.status == 404) for one in failures)

    async def _create_missing(self) -> None:
        await self._informer.synced.wait()
        for task in tuple(self._missing.values()):
            while len(self._unfinished) >= self._window:
                self._room.clear()
                await self._room.wait()
            if task.name in self._missing and task.name not in self._known:
                self._unfinished.add(task.name)
                self._write("task", task.name, partial(self._create, task))

    def _write(self, kind: str, name: str, send: Callable[[], Awaitable[None]]) -> None:
        self._writes.put(Write(kind, f"{self.batch.namespace}/{name}", send))

    async def _create(self, task: BatchTask) -> None:
        """Create a task, or adopt it; what may succeed later is raised, and tried again by the queue."""
        try:
            await self._client.post(names.tasks_path(self.batch.namespace), self.batch.to_object(task))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await self._adopt(task)
            elif self._is_lasting(error):
                self._fail(f"task {task.name} cannot be created: {error}")
            else:
                raise
        else:
            self._may_create = True

    def _is_lasting(self, error: ApiError) -> bool:
        """Whether there is no use in trying again. A right that was there before may come back, as a quota may."""
        if error.status in DENIED:
            return not self._may_create
        return not error.is_transient and error.status != 409

    async def _adopt(self, task: BatchTask) -> None:
        """Accept the task of this name that exists if it is of this batch; the watch then checks what it asks."""
        item = await self._client.get(names.task_path(self.batch.namespace, task.name))
        labels = item["metadata"].get("labels") or {}
        if labels.get(names.BATCH_LABEL) != self.batch.name:
            self._fail(self._explain_conflict(task.name))

    async def _delete(self, name: str, uid: str) -> None:
        try:
            await self._client.delete(names.task_path(self.batch.namespace, name), {"preconditions": {"uid": uid}})
        except ApiError as error:
            if error.status in (404, 409):
                return  # it is gone, or another one
            if error.is_transient and error.status not in DENIED:
                raise
            self._fail(f"task {name} cannot be deleted, though its answer is written: {error}")

    def _read(self, item: Object) -> TaskState | None:
        task = self._missing.get(item["metadata"]["name"])
        return None if task is None else read_state(item, task, waits_for_energy=self._output.has_energies)

    def _note_change(self, old: TaskState | None, new: TaskState | None) -> None:
        state = new or old
        task = self._missing.get(state.name) if state is not None else None
        if state is None or task is None:
            return
        self._known.add(state.name)
        if not state.has_our_spec:
            self._fail(self._explain_conflict(state.name))
        elif new is None:
            self._finish(state, state.line or build_line_of_deleted(task))
        elif new.line is None:
            self._unfinished.add(new.name)
            return
        elif new.is_due:
            self._finish(new, new.line)
        self._unfinished.discard(state.name)
        self._room.set()

    def _finish(self, state: TaskState, line: AnswerLine) -> None:
        del self._missing[line.task]
        self._due.put_nowait(_Finished(line, state.uid, state.answer_name))

    async def _gather(self) -> None:
        while self._missing or not self._due.empty():
            finished = await self._due.get()
            line = await self._complete(finished.line, finished.answer_name)
            self._output.write(line)
            self.tally.add(line)
            if self._deletes:
                self._write("deletion", line.task, partial(self._delete, line.task, finished.uid))

    async def _complete(self, line: AnswerLine, answer_name: str | None) -> AnswerLine:
        """Return the line with the whole text, or as it is if that cannot be read."""
        failures = 0
        while answer_name is not None:
            try:
                item = await self._client.get(names.task_answer_path(self.batch.namespace, answer_name))
                return line.with_whole(TaskAnswer.model_validate(item))
            except (ApiError, ValidationError) as error:
                if not isinstance(error, ApiError) or not error.is_transient or error.status in DENIED:
                    self._notify(f"the whole answer of task {line.task} cannot be read: {error_line(error)}")
                    break
            failures += 1
            await asyncio.sleep(READ_AGAIN.pause_s(failures, self._rng))
        return line

    async def _report_progress(self) -> None:
        total, last = len(self.batch.tasks), ""
        while True:
            await asyncio.sleep(PROGRESS_S)
            words = f"{self.tally.finished} of {total} finished, {self.unfinished} in process"
            if words != last:
                self._notify(words)
            last = words

    async def _raise_failure(self) -> None:
        raise await self._failure

    def _fail(self, words: str) -> None:
        if not self._failure.done():
            self._failure.set_result(SubmissionError(words))

    def _explain_conflict(self, name: str) -> str:
        at = f"{self.batch.namespace}/{name}"
        return f"task {at} exists and is not of this batch, or asks something else: delete it, or use another --name"
