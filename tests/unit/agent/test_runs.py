"""Assignments are carried out by one request each, to a real server in the test."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from perllm.agent.addresses import ServerAddress
from perllm.agent.assignments import Assignment
from perllm.agent.metrics import AgentMetrics
from perllm.agent.results import AttemptReport
from perllm.agent.runs import MAX_KEPT, RunClocks, Runs
from perllm.agent.servers import ModelServers
from perllm.api.report import TokenSource
from perllm.api.served_run import PromptCounts, RunEnd, ServedRun
from perllm.api.task_answer import MAX_STORED_LENGTH, PromptAnswer, TaskAnswer
from perllm.api.task_status import MAX_ANSWER_LENGTH, Result
from perllm.completions.endpoint import Endpoint
from unit.agent.engines import FakeEngine, page
from unit.agent.tasks import assignment
from unit.cluster.queues import make_guard
from unit.completions.model_server import Handler, chunk, encode, refuse, stream, usage_chunk

DUE_IN_S = 0.5


class Inbox:
    """Takes reports, and notes which were dropped."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, ServedRun, Result | None]] = []
        self.answers: list[TaskAnswer | None] = []
        self.dropped: list[str] = []
        self._arrived = asyncio.Event()

    def put(self, assignment: Assignment, report: AttemptReport) -> None:
        self.runs.append((assignment.key, report.run, report.result))
        self.answers.append(report.answer)
        self._arrived.set()

    def drop(self, assignment: Assignment) -> None:
        self.dropped.append(assignment.key)

    async def wait(self, count: int = 1) -> None:
        async with asyncio.timeout(5):
            while len(self.runs) < count:
                self._arrived.clear()
                await self._arrived.wait()


class Desk:
    """The parts of an agent that make requests."""

    def __init__(self, session: aiohttp.ClientSession, server: FakeEngine) -> None:
        self.server = server
        self.inbox = Inbox()
        self.own = Counter[str]()
        self.changed = asyncio.Event()
        self.may_start = True
        self.cluster_s = 0.0
        self.servers = ModelServers(
            session,
            lambda address: Endpoint(session, address.url, now=time.monotonic, unix_now=time.time),
            own=self.own,
            on_change=self._note_change,
            interval_s=60.0,
            now=time.monotonic,
            guard=make_guard(),
            rng=Random(0),
        )
        self.runs = Runs(
            self.servers,
            self.inbox,
            node="n",
            own=self.own,
            may_start=lambda: self.may_start,
            clocks=RunClocks(time.monotonic, lambda: self.cluster_s),
            metrics=AgentMetrics(CollectorRegistry()),
            guard=make_guard(),
            rng=Random(0),
        )

    def _note_change(self) -> None:
        self.changed.set()
        self.runs.advance()


@pytest.fixture
async def server() -> AsyncIterator[FakeEngine]:
    async with FakeEngine.serve() as server:
        yield server


@asynccontextmanager
async def open_desk(server: FakeEngine) -> AsyncIterator[Desk]:
    async with aiohttp.ClientSession() as session:
        desk = Desk(session, server)
        desk.servers.adopt([ServerAddress(server.url, slots=2)])
        watching = asyncio.create_task(desk.servers.run())
        await asyncio.wait_for(desk.servers.synced.wait(), 2)
        yield desk
        watching.cancel()
        await desk.runs.stop(0.0)


@pytest.fixture
async def desk(server: FakeEngine) -> AsyncIterator[Desk]:
    async with open_desk(server) as desk:
        yield desk


async def run_one(desk: Desk, *script: Handler, **changes: Any) -> tuple[ServedRun, Result | None]:
    desk.server.script = list(script)
    desk.runs.assign(assignment(**changes))
    await desk.inbox.wait()
    return desk.inbox.runs[0][1:]


async def test_an_answer_is_reported_with_times_tokens_and_text(desk: Desk) -> None:
    desk.cluster_s, before_s = 1000.0, time.monotonic()

    run, result = await run_one(desk)

    assert (run.attempt, run.end, run.problem) == (1, RunEnd.ANSWERED, None)
    assert (run.prompt_tokens, run.tokens, run.token_source) == (11, 7, TokenSource.USAGE)
    assert run.start_time.timestamp() == desk.cluster_s
    assert desk.cluster_s <= run.end_time.timestamp() <= desk.cluster_s + time.monotonic() - before_s + 0.01
    assert run.time_to_first_token is not None
    assert 0 <= run.time_to_first_token <= (run.end_time - run.start_time).total_seconds() + 0.001
    assert result == Result(text="Hello there")
    assert desk.server.requests[0]["max_tokens"] == 50


async def test_a_model_that_ollama_has_to_load_is_loaded_first_and_the_time_reported(server: FakeEngine) -> None:
    server.become_ollama("m")
    server.load_s = 0.2
    async with open_desk(server) as desk:
        run, result = await run_one(desk)

    assert server.loads == ["m"]
    assert run.load_time is not None
    assert run.time_to_first_token is not None
    assert run.time_to_first_token < 0.2 <= run.load_time <= (run.end_time - run.start_time).total_seconds()
    assert result == Result(text="Hello there")


FAILURES: dict[str, Handler] = {
    "the server reported an error: out of memory": stream(
        encode(chunk("half"), {"object": "error", "message": "out of memory", "code": 500}, "[DONE]")
    ),
    "finish reason abort": stream(encode(chunk("half"), chunk(None, "abort"), usage_chunk(), "[DONE]")),
    "without a finish reason": stream(encode("[DONE]")),
    "ended the stream before": stream(encode(chunk("half"))),
    "answered 500": refuse(500),
    "answered 400: too long": refuse(400, {"error": {"message": "too long"}}),
    "the answer has no text": stream(encode({"choices": [{"delta": {"reasoning": "hm"}}]}, chunk(None, "length"))),
}


@pytest.mark.parametrize("problem", FAILURES)
async def test_what_is_no_answer_is_a_failure_without_a_result(desk: Desk, problem: str) -> None:
    run, result = await run_one(desk, FAILURES[problem])

    assert (run.end, result) == (RunEnd.FAILED, None)
    assert problem in (run.problem or "")
    assert len(desk.server.requests) == 1


@pytest.mark.parametrize(("status", "after", "retry_after"), [(429, "7", 7.0), (503, "", None), (529, "1e9", 3600.0)])
async def test_a_request_that_was_not_accepted_says_when_to_retry(
    desk: Desk, status: int, after: str, retry_after: float | None
) -> None:
    run, result = await run_one(desk, refuse(status, **({"Retry-After": after} if after else {})))

    assert (run.end, run.retry_after, run.tokens, result) == (RunEnd.UNAVAILABLE, retry_after, None, None)
    assert len(desk.server.requests) == 1


async def test_without_a_ready_server_of_the_model_a_task_goes_back(desk: Desk) -> None:
    desk.runs.assign(assignment(model="other"))

    run = desk.inbox.runs[0][1]
    assert (run.end, run.problem) == (RunEnd.UNAVAILABLE, "no model server of this node is ready for other")


async def test_text_is_cleaned_and_what_the_status_cannot_hold_is_stored_next_to_it(desk: Desk) -> None:
    long = "\x1b[31mred\x07" + "x" * MAX_ANSWER_LENGTH

    _, result = await run_one(desk, stream(encode(chunk(long, "stop"))))

    assert result is not None
    assert result.text is not None
    assert (result.text[:4], len(result.text), result.truncated) == ("redx", MAX_ANSWER_LENGTH, True)
    assert result.answer_name == "uid-t-1.n"
    (answer,) = desk.inbox.answers
    assert answer is not None
    assert [len(one.text or "") for one in answer.answers] == [MAX_ANSWER_LENGTH + 3]


class Gate:
    """Handlers that answer when they are let, and note when their connection is closed."""

    def __init__(self) -> None:
        self.entered = 0
        self.closed = asyncio.Event()
        self.open = asyncio.Event()
        self._changed = asyncio.Event()

    async def pass_through(self, request: web.Request) -> web.StreamResponse:
        self.entered += 1
        self._changed.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.closed.set()
            raise
        return await stream(encode(chunk("late", "stop"), "[DONE]"))(request)

    async def wait_for(self, entered: int) -> None:
        async with asyncio.timeout(10):
            while self.entered < entered:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def gate(server: FakeEngine) -> Gate:
    gate = Gate()
    server.script = [gate.pass_through] * 10
    return gate


async def test_a_withdrawn_assignment_closes_its_connection_and_is_not_reported(desk: Desk, gate: Gate) -> None:
    desk.runs.assign(assignment())
    await gate.wait_for(1)

    desk.runs.withdraw(assignment())

    await asyncio.wait_for(gate.closed.wait(), 1)
    await asyncio.sleep(0)
    assert (desk.inbox.runs, desk.inbox.dropped, desk.own[desk.server.url]) == ([], ["team/t"], 0)


async def test_of_a_superseded_attempt_only_the_new_one_is_reported(desk: Desk, gate: Gate) -> None:
    desk.runs.assign(assignment())
    await gate.wait_for(1)
    desk.runs.withdraw(assignment())
    desk.runs.assign(assignment(attempt=2))
    gate.open.set()

    await desk.inbox.wait()

    assert [run.attempt for _, run, _ in desk.inbox.runs] == [2]


async def test_an_attempt_that_is_withdrawn_and_assigned_again_at_once_is_made_again(desk: Desk, gate: Gate) -> None:
    desk.runs.assign(assignment())
    await gate.wait_for(1)

    desk.runs.withdraw(assignment())
    desk.runs.assign(assignment())
    gate.open.set()

    await desk.inbox.wait()
    assert len(desk.server.requests) == 2


@pytest.mark.parametrize("prompts", [{}, {"prompt": None, "prompts": ["a", "b"]}], ids=["one", "a list"])
async def test_an_answer_is_reported_again_if_its_attempt_is_assigned_again(
    desk: Desk, prompts: dict[str, Any]
) -> None:
    """As when someone removed the status of its task, so that the report was denied, and the operator restored it."""
    one = assignment(**prompts)
    await run_one(desk, **prompts)
    requests = len(desk.server.requests)

    desk.runs.withdraw(one)
    desk.runs.assign(one)

    assert (len(desk.inbox.runs), len(desk.server.requests)) == (2, requests)
    assert desk.inbox.runs[0] == desk.inbox.runs[1]
    assert desk.inbox.answers[0] == desk.inbox.answers[1]


async def test_what_is_no_answer_is_asked_again_if_its_attempt_is_assigned_again(desk: Desk) -> None:
    await run_one(desk, refuse(503))

    desk.runs.withdraw(assignment())
    desk.runs.assign(assignment())

    await desk.inbox.wait(2)
    assert [run.end for _, run, _ in desk.inbox.runs] == [RunEnd.UNAVAILABLE, RunEnd.ANSWERED]


async def test_only_the_last_answers_are_kept(desk: Desk) -> None:
    for number in range(MAX_KEPT + 1):
        desk.runs.assign(assignment(name=f"t{number}"))
        await desk.inbox.wait(number + 1)

    for number in (0, 1):
        desk.runs.withdraw(assignment(name=f"t{number}"))
        desk.runs.assign(assignment(name=f"t{number}"))

    await desk.inbox.wait(MAX_KEPT + 3)
    assert len(desk.server.requests) == MAX_KEPT + 2


async def test_an_attempt_that_ends_with_the_deadline_is_closed_then_and_not_reported(desk: Desk, gate: Gate) -> None:
    one = assignment(onDeadlineMissed="Terminate")
    desk.cluster_s = one.due_unix_s - DUE_IN_S

    desk.runs.assign(one)
    await gate.wait_for(1)

    await asyncio.wait_for(gate.closed.wait(), 10)
    assert desk.inbox.runs == []


@pytest.mark.parametrize("ends", [True, False])
async def test_an_attempt_ends_at_the_deadline_or_not_as_its_task_says_by_then(
    desk: Desk, gate: Gate, ends: bool
) -> None:
    before, after = (assignment(onDeadlineMissed="Terminate" if one else "Continue") for one in (not ends, ends))
    desk.cluster_s = before.due_unix_s - DUE_IN_S
    desk.runs.assign(before)
    await gate.wait_for(1)

    desk.runs.change(after)
    with suppress(TimeoutError):
        await asyncio.wait_for(gate.closed.wait(), 10 if ends else DUE_IN_S + 0.3)

    assert gate.closed.is_set() == ends


async def test_of_an_attempt_that_waits_the_newest_word_about_its_end_counts(desk: Desk) -> None:
    desk.may_start = False
    desk.cluster_s = assignment().due_unix_s + 1.0
    desk.runs.assign(assignment(onDeadlineMissed="Terminate"))

    desk.runs.change(assignment())
    desk.may_start = True
    desk.runs.advance()

    await desk.inbox.wait()


async def test_a_late_task_that_may_go_on_goes_on(desk: Desk) -> None:
    desk.cluster_s = assignment().due_unix_s + 100
    run, _ = await run_one(desk)
    assert run.end is RunEnd.ANSWERED


async def test_no_more_requests_than_slots_are_made_and_the_others_follow_in_order(desk: Desk, gate: Gate) -> None:
    for number in range(4):
        desk.runs.assign(assignment(name=f"t{number}", prompt=f"{number}"))
    await gate.wait_for(2)
    await asyncio.sleep(0.05)
    assert (gate.entered, desk.own[desk.server.url]) == (2, 2)

    gate.open.set()
    await desk.inbox.wait(4)

    sent = [request["messages"][0]["content"] for request in desk.server.requests]
    assert (sorted(sent[:2]), sent[2:]) == (["0", "1"], ["2", "3"])


async def test_nothing_is_started_while_the_lease_is_not_valid(desk: Desk) -> None:
    desk.may_start = False
    desk.runs.assign(assignment())
    await asyncio.sleep(0.05)
    assert desk.server.requests == []

    desk.may_start = True
    desk.runs.advance()

    await desk.inbox.wait()


async def test_a_task_that_waits_goes_back_when_its_server_is_gone(desk: Desk, gate: Gate) -> None:
    for number in range(3):
        desk.runs.assign(assignment(name=f"t{number}"))
    await gate.wait_for(2)

    desk.server.pages["/health"] = page("", 503)
    desk.servers.find("m")[0].hurry.set()
    await desk.inbox.wait()

    key, run, _ = desk.inbox.runs[0]
    assert (key, run.end) == ("team/t2", RunEnd.UNAVAILABLE)


async def test_a_server_that_did_not_accept_a_request_is_looked_at(desk: Desk) -> None:
    desk.server.pages["/health"] = page("", 503)
    desk.changed.clear()

    await run_one(desk, refuse(503))

    await asyncio.wait_for(desk.changed.wait(), 2)
    assert desk.servers.find("m") == []


async def test_a_stop_lets_requests_end_and_starts_no_others(desk: Desk, gate: Gate) -> None:
    for number in range(3):
        desk.runs.assign(assignment(name=f"t{number}"))
    await gate.wait_for(2)
    stopping = asyncio.create_task(desk.runs.stop(5.0))
    await asyncio.sleep(0)
    gate.open.set()
    await stopping
    await asyncio.sleep(0.05)

    assert sorted(key for key, _, _ in desk.inbox.runs) == ["team/t0", "team/t1"]
    assert len(desk.server.requests) == 2


async def test_requests_that_outlast_the_grace_period_are_closed_and_not_reported(desk: Desk, gate: Gate) -> None:
    desk.runs.assign(assignment())
    await gate.wait_for(1)

    await desk.runs.stop(0.05)

    await asyncio.wait_for(gate.closed.wait(), 1)
    assert desk.inbox.runs == []


async def test_prompts_and_answers_are_not_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    desk.server.script = [stream(encode(chunk("secret answer", "stop"))), refuse(400, {"error": "secret prompt"})]

    for number in range(2):
        desk.runs.assign(assignment(name=f"t{number}", prompt="secret prompt"))
    await desk.inbox.wait(2)

    assert "secret" not in caplog.text


async def test_the_least_busy_server_is_asked(desk: Desk) -> None:
    async with FakeEngine.serve() as busy:
        busy.show_load(running=50, waiting=0)
        desk.servers.synced.clear()
        desk.servers.adopt([ServerAddress(busy.url), ServerAddress(desk.server.url)])
        await asyncio.wait_for(desk.servers.synced.wait(), 2)

        desk.runs.assign(assignment())
        await desk.inbox.wait()

        assert (len(desk.server.requests), len(busy.requests)) == (1, 0)


async def test_several_prompts_are_asked_one_after_the_other_and_answered_together(desk: Desk, gate: Gate) -> None:
    prompts = ["one", "two", "three"]
    desk.runs.assign(assignment(prompt=None, prompts=prompts, system="Be brief."))
    await gate.wait_for(1)
    await asyncio.sleep(0.05)
    assert (gate.entered, desk.own[desk.server.url]) == (1, 1)

    gate.open.set()
    await desk.inbox.wait()

    sent = [[message["content"] for message in request["messages"]] for request in desk.server.requests]
    assert sent == [["Be brief.", prompt] for prompt in prompts]
    _, run, result = desk.inbox.runs[0]
    assert (run.end, run.tokens, run.prompts) == (RunEnd.ANSWERED, 3, PromptCounts(total=3, answered=3, failed=0))
    assert result == Result(answer_name="uid-t-1.n")
    one = PromptAnswer(index=0, text="late", finish_reason="stop", output_tokens=1)
    assert desk.inbox.answers == [
        TaskAnswer(attempt=1, answers=tuple(one.model_copy(update={"index": at}) for at in range(3)))
    ]


async def test_times_and_tokens_of_several_prompts_are_those_of_all_together(desk: Desk) -> None:
    before_s = time.monotonic()

    run, _ = await run_one(desk, prompt=None, prompts=["a", "b"])

    assert (run.prompt_tokens, run.tokens, run.token_source) == (22, 14, TokenSource.USAGE)
    assert 0.0 < (run.end_time - run.start_time).total_seconds() <= time.monotonic() - before_s + 0.01


async def test_a_list_of_one_prompt_is_answered_as_any_list(desk: Desk) -> None:
    run, result = await run_one(desk, prompt=None, prompts=["a"])

    assert (run.prompts, result) == (PromptCounts(total=1, answered=1, failed=0), Result(answer_name="uid-t-1.n"))


async def test_a_prompt_without_an_answer_does_not_cost_the_others_theirs(desk: Desk) -> None:
    rejected = refuse(400, {"error": {"message": "too long"}})

    run, _ = await run_one(desk, rejected, prompt=None, prompts=["a", "b"])

    assert (run.end, run.problem, run.prompts) == (
        RunEnd.ANSWERED,
        None,
        PromptCounts(total=2, answered=1, failed=1),
    )
    (answer,) = desk.inbox.answers
    assert answer is not None
    assert [one.text for one in answer.answers] == [None, "Hello there"]
    assert "answered 400: too long" in (answer.answers[0].problem or "")


async def test_an_attempt_fails_if_no_prompt_was_answered(desk: Desk) -> None:
    run, result = await run_one(desk, refuse(500), refuse(500), prompt=None, prompts=["a", "b"], retries=3)

    assert (run.end, result, desk.inbox.answers) == (RunEnd.FAILED, None, [None])
    assert (run.problem or "").startswith("none of the 2 prompts was answered; the last one: ")
    assert len(desk.server.requests) == 2


async def test_answers_that_are_too_long_together_are_cut_to_equal_shares(desk: Desk) -> None:
    long = stream(encode(chunk("x" * MAX_STORED_LENGTH, "stop")))
    short = stream(encode(chunk("y", "stop")))

    await run_one(desk, long, short, prompt=None, prompts=["a", "b"])

    (answer,) = desk.inbox.answers
    assert answer is not None
    assert [(len(one.text or ""), one.truncated) for one in answer.answers] == [
        (MAX_STORED_LENGTH // 2, True),
        (1, None),
    ]


async def test_several_prompts_are_withdrawn_together(desk: Desk, gate: Gate) -> None:
    one = assignment(prompt=None, prompts=["a", "b"])
    desk.runs.assign(one)
    await gate.wait_for(1)

    desk.runs.withdraw(one)
    await asyncio.wait_for(gate.closed.wait(), 1)
    await asyncio.sleep(0.05)

    assert (gate.entered, desk.inbox.runs) == (1, [])


async def test_an_unexpected_failure_before_the_request_ends_the_attempt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("no such engine")

    monkeypatch.setattr(desk.servers, "load", fail)
    run, _ = await run_one(desk)
    assert (run.end, run.problem) == (RunEnd.FAILED, "the request failed unexpectedly: KeyError")
