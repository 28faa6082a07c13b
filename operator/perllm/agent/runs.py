"""Carries assignments out on servers of their models, at most as many at a time as a server has slots.

Each makes one request at a time.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from perllm.agent.assignments import Assignment, AssignmentId
from perllm.agent.inquiry import Inquiry, Reply, inquire
from perllm.agent.metrics import AgentMetrics
from perllm.agent.results import AttemptReport, build_report
from perllm.agent.servers import KnownServer, ModelServers
from perllm.api import names
from perllm.api.served_run import RunEnd
from perllm.completions.answer import Answer
from perllm.completions.endpoint import ChatRequest
from perllm.completions.errors import CompletionError, ServerFailedError, UnavailableError
from perllm.guard import Guard

log = logging.getLogger(__name__)

MAX_KEPT = 64
"""Answers that are kept: the operator restores a status that was removed within moments."""


class RunReporter(Protocol):
    """Reports attempts that have ended. Its methods must not block."""

    def put(self, assignment: Assignment, report: AttemptReport) -> None:
        """Report an attempt."""

    def drop(self, assignment: Assignment) -> None:
        """Drop a report that was not made yet: the run is no longer wanted."""


@dataclass(frozen=True, slots=True)
class RunClocks:
    """The clocks that runs need.

    Attributes:
        now: monotonic, in seconds.
        cluster_now: Unix time of the cluster, in seconds; deadlines are in it, and runs are reported in it.
    """

    now: Callable[[], float]
    cluster_now: Callable[[], float]


class Runs:
    """The assignments that wait for a slot, and those whose requests are in process.

    Args:
        servers: the model servers.
        reports: reports attempts that have ended.
        node: name of this node.
        own: number of requests in process by URL of the server; kept here, for the servers to know.
        may_start: whether new requests may be made.
        clocks: the clocks.
        metrics: counts what happens.
        guard: records unexpected failures.
        rng: jitter of pauses.
    """

    def __init__(
        self,
        servers: ModelServers,
        reports: RunReporter,
        *,
        node: str,
        own: Counter[str],
        may_start: Callable[[], bool],
        clocks: RunClocks,
        metrics: AgentMetrics,
        guard: Guard,
        rng: Random,
    ) -> None:
        self._servers = servers
        self._reports = reports
        self._node = node
        self._own = own
        self._may_start = may_start
        self._clocks = clocks
        self._metrics = metrics
        self._guard = guard
        self._rng = rng
        self._waiting: dict[AssignmentId, Assignment] = {}
        self._running: dict[AssignmentId, asyncio.Task[None]] = {}
        self._limits: dict[AssignmentId, asyncio.Timeout] = {}
        self._answers: dict[AssignmentId, AttemptReport] = {}
        self._is_stopping = False

    def assign(self, assignment: Assignment) -> None:
        """Carry an assignment out as soon as a server of its model has a slot for it.

        One that was answered already is assigned again if the status of its task was removed, with which its report was
        lost or denied, and the operator has restored it.
        """
        answer = self._answers.get(assignment.id)
        if answer is not None:
            self._reports.put(assignment, answer)
        elif assignment.id not in self._running:
            self._waiting[assignment.id] = assignment
            self.advance()

    def change(self, assignment: Assignment) -> None:
        """Note whether an assignment ends at its deadline by now."""
        if assignment.id in self._waiting:
            self._waiting[assignment.id] = assignment
        limit = self._limits.get(assignment.id)
        if limit is not None and not limit.expired():
            left_s = self._time_left_s(assignment)
            limit.reschedule(None if left_s is None else asyncio.get_running_loop().time() + left_s)

    def withdraw(self, assignment: Assignment) -> None:
        """Forget an assignment; if its request is in process, it is closed at once."""
        self._reports.drop(assignment)
        self._guard.clear("task", assignment.key)
        self._waiting.pop(assignment.id, None)
        # It is assigned again if the status of the task is removed and the operator restores it.
        request = self._running.pop(assignment.id, None)
        if request is not None:
            request.cancel()
        self._show()

    def advance(self) -> None:
        """Start what can be started now, in the order of arrival."""
        if self._is_stopping or not self._servers.synced.is_set() or not self._may_start():
            return
        full: set[str] = set()
        for assignment in list(self._waiting.values()):
            if assignment.model in full:
                continue
            servers = self._servers.find(assignment.model)
            free = [server for server in servers if self._has_slot(server)]
            if servers and not free:
                full.add(assignment.model)
                continue
            del self._waiting[assignment.id]
            if not servers:
                self._report_missing(assignment)
            elif self._time_left_s(assignment) != 0:
                self._start(assignment, min(free, key=self._count_requests))
        self._show()

    async def stop(self, grace_s: float) -> None:
        """Start nothing more, and return when no request is in process; those that take longer are closed."""
        self._is_stopping = True
        running = list(self._running.values())
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_s)
        if late:
            log.warning("%d requests did not end within %g s: they will be repeated", len(late), grace_s)
            for request in late:
                request.cancel()
            await asyncio.wait(late)

    def _start(self, assignment: Assignment, server: KnownServer) -> None:
        self._own[server.address.url] += 1
        request = asyncio.create_task(self._carry_out(assignment, server))
        self._running[assignment.id] = request
        request.add_done_callback(lambda done: self._end(assignment, server, done))

    def _end(self, assignment: Assignment, server: KnownServer, request: asyncio.Task[None]) -> None:
        self._own[server.address.url] -= 1
        if self._running.get(assignment.id) is request:
            del self._running[assignment.id]
        if request.cancelled():
            self._metrics.closed.inc()
        self.advance()
        self._show()

    async def _carry_out(self, assignment: Assignment, server: KnownServer) -> None:
        """Ask and report how it ended. What ends with the deadline is closed and not reported."""
        clocks = self._clocks
        begun_s, begun_unix_s = clocks.now(), clocks.cluster_now()
        ask = partial(self._ask, assignment, server)
        limit = self._limits[assignment.id] = asyncio.timeout(self._time_left_s(assignment))
        try:
            async with limit:
                inquiry = await inquire(assignment.to_requests(), ask, retries=assignment.prompt_retries, rng=self._rng)
        except TimeoutError:
            self._metrics.closed.inc()
            return
        finally:
            if self._limits.get(assignment.id) is limit:  # it may have been assigned again meanwhile
                del self._limits[assignment.id]
        self._report(assignment, inquiry, begun_unix_s, self._clocks.now() - begun_s)

    async def _ask(
        self, assignment: Assignment, server: KnownServer, request: ChatRequest, answer: Answer
    ) -> CompletionError | None:
        """Make a request; return why there is no complete answer, None if there is."""
        try:
            answer.load_s = await self._servers.load(server, request.model)
            server.learning.begin(answer)
            await server.endpoint.ask(request, answer)
        except UnavailableError as error:
            if error.is_full:
                server.learning.see_refusal(self._count_requests(server) - 1)
            server.hurry.set()
            return error
        except CompletionError as error:
            return error
        except Exception as error:
            self._guard.note("task", assignment.key, error)
            return ServerFailedError(f"the request failed unexpectedly: {type(error).__name__}")
        finally:
            server.learning.end(answer)
        return None

    def _report_missing(self, assignment: Assignment) -> None:
        error = UnavailableError(f"no model server of this node is ready for {assignment.model}")
        self._report(assignment, Inquiry([Reply(Answer(), error)], error=error), self._clocks.cluster_now(), 0.0)

    def _report(self, assignment: Assignment, inquiry: Inquiry, begun_unix_s: float, length_s: float) -> None:
        attempt, name = assignment.attempt, names.task_answer_name(*assignment.id, self._node)
        report = build_report(attempt, inquiry, name, begun_unix_s=begun_unix_s, length_s=length_s)
        self._metrics.note_run(report.run)
        if report.run.end is RunEnd.ANSWERED:
            self._keep(assignment, report)
        self._reports.put(assignment, report)

    def _keep(self, assignment: Assignment, report: AttemptReport) -> None:
        self._answers[assignment.id] = report
        if len(self._answers) > MAX_KEPT:
            del self._answers[next(iter(self._answers))]

    def _has_slot(self, server: KnownServer) -> bool:
        slots = server.state.slots if server.state is not None else None
        return slots is None or self._own[server.address.url] < slots

    def _count_requests(self, server: KnownServer) -> int:
        """Return how many requests the server has, as far as known."""
        foreign = server.state.foreign if server.state is not None else 0
        return self._own[server.address.url] + foreign

    def _time_left_s(self, assignment: Assignment) -> float | None:
        """Return the seconds until the attempt ends with the deadline; None if it does not."""
        if not assignment.ends_at_deadline:
            return None
        return max(assignment.due_unix_s - self._clocks.cluster_now(), 0.0)

    def _show(self) -> None:
        self._metrics.running.set(len(self._running))
        self._metrics.waiting.set(len(self._waiting))
