"""Creates the tasks of a batch, a bounded number at a time, and writes the answers as they come.

All state is on the API server and in the output, so an interrupted submission continues when it is repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.informer import Informer
from perllm.cluster.outages import Outages
from perllm.cluster.writes import Write, WriteQueue
from perllm.guard import Guard
from perllm.submission.answers import AnswerLine, Tally, build_line_of_deleted
from perllm.submission.batch import Batch, BatchTask
from perllm.submission.output import Output
from perllm.submission.task_requests import TaskRequests, explain_conflict
from perllm.submission.task_state import TaskState, read_state

PROGRESS_S = 5.0


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
        deletes: whether a task is deleted once its line is written, with the whole answer.
        report: called with progress.
        rng: jitter of pauses.
        account: called with the name of each task that has a line, before the task may be deleted.

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
        account: Callable[[str], Awaitable[None]] | None = None,
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
        self._account = account
        self._requests = TaskRequests(client, batch, notify=report, fail=self._fail, rng=rng)
        written = {line.task for line in output.lines}
        self._missing = {task.name: task for task in batch.tasks if task.name not in written}
        self._known: set[str] = set()
        self._unfinished: set[str] = set()
        self._room = asyncio.Event()
        self._due: asyncio.Queue[_Finished] = asyncio.Queue()
        self._failure: asyncio.Future[SubmissionError] = loop.create_future()
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
            OutputError, OSError: a line could not be written.
        """
        if not self._missing:
            return
        # The informer would retry forever, even with a wrong address or without rights.
        await self._check_access()
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

    async def _check_access(self) -> None:
        try:
            await self._client.get(names.tasks_path(self.batch.namespace), labelSelector=self.batch.selector, limit="1")
        except ApiError as error:
            if error.status != 429 and error.status < 500:  # it is there, and overloaded
                raise

    async def _create_missing(self) -> None:
        await self._informer.synced.wait()
        for task in tuple(self._missing.values()):
            while len(self._unfinished) >= self._window:
                self._room.clear()
                await self._room.wait()
            if task.name in self._missing and task.name not in self._known:
                self._unfinished.add(task.name)
                self._write("task", task.name, partial(self._create, task))

    async def _create(self, task: BatchTask) -> None:
        # A creation whose answer got lost is repeated: by then the task may have been answered, and deleted.
        if task.name in self._missing:
            await self._requests.create(task)

    def _write(self, kind: str, name: str, send: Callable[[], Awaitable[None]]) -> None:
        self._writes.put(Write(kind, f"{self.batch.namespace}/{name}", send))

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
            self._fail(explain_conflict(self.batch, state.name))
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
            line = await self._requests.complete(finished.line, finished.answer_name)
            self._output.write(line)
            self.tally.add(line)
            if self._account is not None:
                await self._account(line.task)
            # Of an answer that could not be read, the task is all there is.
            is_whole = finished.answer_name is None or line is not finished.line
            if self._deletes and is_whole:
                self._write("deletion", line.task, partial(self._requests.delete, line.task, finished.uid))

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
