import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from perllm.api import names
from perllm.api.task_status import TaskPhase
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError
from perllm.submission.answers import AnswerLine
from perllm.submission.session import carry_out
from perllm.submission.submission import Submission, SubmissionError
from unit.cluster.fake_api import FakeApiServer
from unit.submission.batches import TASKS, Lines, batch, created, finish, path, submission

pytestmark = pytest.mark.looptime

TWO = batch("a", "b")
FIRST, SECOND = (task.name for task in TWO.tasks)


@asynccontextmanager
async def under_way(submission: Submission) -> AsyncIterator[asyncio.Task[None]]:
    """Run a submission until it has done what it can for now, and after the block until it ends."""
    running = asyncio.ensure_future(submission.run())
    await asyncio.sleep(1)
    yield running
    async with asyncio.timeout(600):
        await running


async def test_each_prompt_becomes_one_task_of_the_batch() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, TWO, output)):
        assert created(api) == [FIRST, SECOND]
        task = api.read(path(FIRST))
        assert task is not None
        assert task["metadata"]["labels"] == {names.BATCH_LABEL: "b"}
        assert task["spec"]["messages"] == [{"role": "user", "content": "a"}]
        finish(api, FIRST)
        finish(api, SECOND)

    assert [line.text for line in output.written] == [f"answer of {FIRST}", f"answer of {SECOND}"]


async def test_lines_come_as_tasks_finish_with_what_is_known_of_them() -> None:
    api, output = FakeApiServer(), Lines()
    observed = {"latency": 1.5, "energyJoules": 20.0, "energyQuality": "coarse", "promptTokens": 3, "tokens": 7}

    async with under_way(submission(api, TWO, output)):
        finish(api, SECOND, nodeName="n", deadlineMet=True, observed=observed)
        await asyncio.sleep(1)
        assert output.written == [
            AnswerLine(
                index=1,
                task=SECOND,
                phase=TaskPhase.SUCCEEDED,
                text=f"answer of {SECOND}",
                deadline_met=True,
                latency_seconds=1.5,
                energy_joules=20.0,
                node="n",
                prompt_tokens=3,
                output_tokens=7,
            )
        ]
        finish(api, FIRST)


async def test_a_line_waits_for_the_energy_but_frees_its_place_at_once() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, TWO, output, window=1)):
        finish(api, FIRST, observed={"latency": 1.0})
        await asyncio.sleep(1)
        assert (output.written, created(api)) == ([], [FIRST, SECOND])
        finish(api, FIRST, observed={"energyJoules": 5.0, "energyQuality": "measured"})
        await asyncio.sleep(1)
        assert [line.energy_joules for line in output.written] == [5.0]
        finish(api, SECOND)


async def test_an_answer_is_not_lost_when_its_task_is_deleted_before_its_energy_is_known() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")

    async with under_way(submission(api, one, output)):
        finish(api, one.tasks[0].name, observed={"latency": 1.0})
        await asyncio.sleep(1)
        api.remove(path(one.tasks[0].name))

    assert [(line.phase, line.problem) for line in output.written] == [(TaskPhase.SUCCEEDED, None)]


ANSWER = names.task_answer_path("team", "uid-1.n")
CUT_OFF = {"text": "It be…", "truncated": True, "answerName": "uid-1.n"}


async def test_the_whole_of_a_long_answer_is_gathered() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")
    api.store(ANSWER, attempt=1, answers=[{"index": 0, "text": "It begins,\x07 and ends."}])

    async with under_way(submission(api, one, output)):
        api.fail("GET", *[ApiUnreachableError("away")] * 3)
        finish(api, one.tasks[0].name, result=CUT_OFF)

    assert [(line.text, line.truncated) for line in output.written] == [("It begins, and ends.", None)]


@pytest.mark.parametrize("error", [ApiError(404, "NotFound", "gone"), ApiError(403, "Forbidden", "no right")])
async def test_a_long_answer_that_cannot_be_read_keeps_its_beginning(error: ApiError) -> None:
    api, output, one, reports = FakeApiServer(), Lines(), batch("a"), list[str]()

    async with under_way(submission(api, one, output, report=reports.append)):
        api.fail("GET", error)
        finish(api, one.tasks[0].name, result=CUT_OFF)

    assert [(line.text, line.truncated) for line in output.written] == [("It be…", True)]
    assert f"the whole answer of task {one.tasks[0].name} cannot be read: {error}" in reports


async def test_an_answer_that_the_api_server_cannot_decode_does_not_hold_up_the_others() -> None:
    api, output, reports = FakeApiServer(), Lines(), list[str]()

    async with under_way(submission(api, TWO, output, report=reports.append)):
        api.fail("GET", *[ApiError(500, "InternalError", "cannot decode")] * 50)
        finish(api, FIRST, result=CUT_OFF)
        finish(api, SECOND)
        await asyncio.sleep(120)
        api.recover("GET")

    assert [(line.task, line.truncated) for line in output.written] == [(FIRST, True), (SECOND, None)]
    assert any("cannot be read: 500 InternalError: cannot decode" in words for words in reports)


async def test_fields_that_a_newer_api_server_adds_do_not_matter() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")

    async with under_way(submission(api, one, output)):
        api.store(path(one.tasks[0].name), spec={"added": True})
        finish(api, one.tasks[0].name)

    assert len(output.written) == 1


async def test_a_task_whose_priority_is_changed_while_it_waits_is_still_of_the_batch() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, TWO, output)):
        api.store(path(FIRST), spec={"priority": 500, "suspend": True, "retries": 3, "ttlAfterFinished": "1h"})
        await asyncio.sleep(1)
        finish(api, FIRST)
        finish(api, SECOND)

    assert len(output.written) == 2


async def test_progress_is_reported_from_time_to_time_if_there_is_any() -> None:
    api, reports = FakeApiServer(), list[str]()

    async with under_way(submission(api, TWO, Lines(), report=reports.append)):
        finish(api, FIRST)
        await asyncio.sleep(60)
        assert reports == ["1 of 2 finished, 1 in process"]
        finish(api, SECOND)


async def test_an_answer_cannot_control_a_terminal() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, batch("a"), output)):
        finish(api, created(api)[0], result={"text": "red \x1b[31malert\x07"})

    assert output.written[0].text == "red alert"


async def test_no_more_tasks_than_the_window_are_unfinished() -> None:
    api, output = FakeApiServer(), Lines()
    five = batch(*"abcde")

    async with under_way(submission(api, five, output, window=2)):
        for done, task in enumerate(five.tasks, start=1):
            assert len(created(api)) == min(done + 1, 5)
            finish(api, task.name)
            await asyncio.sleep(1)


async def test_what_runs_since_an_earlier_call_takes_a_place_of_the_window() -> None:
    api, output = FakeApiServer(), Lines()
    api.store(path(SECOND), **TWO.to_object(TWO.tasks[1]))

    async with under_way(submission(api, TWO, output, window=1)):
        assert created(api) == []
        finish(api, SECOND)
        await asyncio.sleep(1)
        assert created(api) == [FIRST]
        finish(api, FIRST)


async def test_a_repeated_call_adopts_what_exists_and_skips_what_is_written() -> None:
    api = FakeApiServer()
    four = batch(*"abcd")
    written, finished, running, missing = four.tasks
    for task in (finished, running):
        api.store(path(task.name), **four.to_object(task))
    finish(api, finished.name)
    output = Lines([AnswerLine(index=0, task=written.name, phase=TaskPhase.SUCCEEDED, text="old")])
    repeated = submission(api, four, output)

    async with under_way(repeated):
        assert created(api) == [missing.name]
        finish(api, missing.name)
        finish(api, running.name)

    assert [line.task for line in output.written] == [finished.name, missing.name, running.name]
    assert repeated.tally.answered == 4


async def test_when_all_is_written_nothing_is_asked() -> None:
    api, one = FakeApiServer(), batch("a")
    output = Lines([AnswerLine(index=0, task=one.tasks[0].name, phase=TaskPhase.SUCCEEDED)])

    await submission(api, one, output).run()

    assert api.calls == []


@pytest.mark.parametrize("labels", [{names.BATCH_LABEL: "b"}, {}], ids=["of this batch", "not of this batch"])
async def test_a_task_of_the_same_name_that_asks_something_else_is_an_error(labels: dict[str, str]) -> None:
    api, other = FakeApiServer(), batch("other")
    api.store(path(FIRST), metadata={"namespace": "team", "labels": labels}, spec=other.tasks[0].spec.to_object())

    with pytest.raises(SubmissionError, match=f"task team/{FIRST} exists .*: delete it, or use another --name"):
        await submission(api, TWO, Lines()).run()


async def test_a_task_that_was_created_although_the_answer_got_lost_is_not_created_twice() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")

    async def create_and_lose_the_answer(at: str, body: dict[str, object], **_: str) -> dict[str, object]:
        api.post = post  # type: ignore[method-assign]
        await post(at, body)
        raise ApiUnreachableError("lost")

    post, api.post = api.post, create_and_lose_the_answer  # type: ignore[method-assign]
    async with under_way(submission(api, one, output)):
        await asyncio.sleep(10)
        finish(api, one.tasks[0].name)

    assert len(output.written) == 1


async def test_a_task_that_was_answered_and_deleted_while_its_creation_seemed_to_hang_is_not_created_again() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")

    async def create_and_hang(at: str, body: dict[str, object], **_: str) -> dict[str, object]:
        api.post = post  # type: ignore[method-assign]
        await post(at, body)
        await asyncio.sleep(30)
        raise ApiTimeoutError("no answer")

    post, api.post = api.post, create_and_hang  # type: ignore[method-assign]
    async with under_way(submission(api, one, output, deletes=True)):
        finish(api, one.tasks[0].name)
        await asyncio.sleep(60)

    assert len(output.written) == 1
    assert (await api.get(TASKS))["items"] == []


async def test_an_api_server_that_goes_away_in_the_middle_delays_and_loses_nothing() -> None:
    api, output = FakeApiServer(), Lines()
    four = batch(*"abcd")
    names_ = [task.name for task in four.tasks]

    async with under_way(submission(api, four, output, window=2)):
        api.fail("POST", *[ApiUnreachableError("away")] * 5)
        api.watch_failures += [ApiUnreachableError("away")] * 5
        api.end_watches(ApiUnreachableError("away"))
        finish(api, names_[0])
        finish(api, names_[1])
        await asyncio.sleep(60)
        assert set(created(api)) == set(names_)
        finish(api, names_[2])
        finish(api, names_[3])

    assert [line.task for line in output.written] == names_


@pytest.mark.parametrize(
    "error",
    [ApiError(403, "Forbidden", "no right"), ApiError(422, "Invalid", "bad"), ApiError(404, "NotFound", "namespace")],
)
async def test_a_creation_that_is_of_no_use_to_repeat_ends_the_submission(error: ApiError) -> None:
    api = FakeApiServer()
    api.fail("POST", error)

    with pytest.raises(SubmissionError, match=f"cannot be created: {error.status}"):
        await submission(api, batch("a"), Lines()).run()


async def test_a_right_that_was_there_before_may_come_back() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, TWO, output, window=1)):
        api.fail("POST", ApiError(403, "Forbidden", "exceeded quota"))
        finish(api, FIRST)
        await asyncio.sleep(10)
        finish(api, SECOND)

    assert len(output.written) == 2


async def test_a_quota_that_is_used_up_by_an_earlier_call_is_waited_for() -> None:
    api, output = FakeApiServer(), Lines()
    api.store(path(SECOND), **TWO.to_object(TWO.tasks[1]))
    denial = 'llminferencetasks.perllm.io "x" is forbidden: exceeded quota: tasks, used: 1, limited: 1'
    api.fail("POST", *[ApiError(403, "Forbidden", denial)] * 3)

    async with under_way(submission(api, TWO, output)):
        finish(api, SECOND)
        await asyncio.sleep(10)
        finish(api, FIRST)

    assert len(output.written) == 2


async def test_an_overloaded_api_server_is_waited_for_from_the_start() -> None:
    api, output = FakeApiServer(), Lines()
    api.fail("GET", ApiError(429, "TooManyRequests", "later"), ApiError(503, "ServiceUnavailable", "later"))

    async with under_way(submission(api, TWO, output)):
        finish(api, FIRST)
        finish(api, SECOND)

    assert len(output.written) == 2


async def test_an_api_server_that_cannot_be_read_at_the_start_is_an_error_at_once() -> None:
    api = FakeApiServer()
    api.fail("GET", ApiUnreachableError("wrong address"))

    with pytest.raises(ApiUnreachableError):
        await submission(api, TWO, Lines()).run()

    assert created(api) == []


async def test_tasks_without_an_answer_are_lines_with_a_problem() -> None:
    api, output = FakeApiServer(), Lines()
    three = batch(*"abc")
    failed, rejected, deleted = (task.name for task in three.tasks)
    reports: list[str] = []
    running = asyncio.ensure_future(carry_out(submission(api, three, output), cancels=False, report=reports.append))
    await asyncio.sleep(1)

    finish(api, failed, "Failed", message="the server aborted the answer", deadlineMet=False)
    finish(api, rejected, "Rejected", message="no node is fast enough")
    api.remove(path(deleted))

    assert not await running
    assert [(line.phase, line.problem) for line in output.written] == [
        (TaskPhase.FAILED, "the server aborted the answer"),
        (TaskPhase.REJECTED, "no node is fast enough"),
        (None, "the task was deleted before it had finished"),
    ]
    assert reports == ["batch b: 0 answered, 2 failed, 1 rejected, 1 late, 0 tokens, energy unknown"]


async def test_a_batch_is_complete_if_all_prompts_were_answered() -> None:
    api, output = FakeApiServer(), Lines()
    reports: list[str] = []
    running = asyncio.ensure_future(carry_out(submission(api, TWO, output), cancels=False, report=reports.append))
    await asyncio.sleep(1)

    finish(api, FIRST, observed={"tokens": 7, "energyJoules": 20.0, "energyQuality": "measured"})
    finish(api, SECOND, deadlineMet=False, observed={"tokens": 3, "energyQuality": "missing"})

    assert await running
    assert reports == ["batch b: 2 answered, 0 failed, 0 rejected, 1 late, 10 tokens, 20 J known"]


async def test_tasks_are_deleted_once_their_answer_is_written_if_asked() -> None:
    api, output = FakeApiServer(), Lines()

    async with under_way(submission(api, TWO, output, deletes=True)):
        finish(api, FIRST)
        await asyncio.sleep(1)
        assert api.calls_of("DELETE") == [(path(FIRST), {"preconditions": {"uid": f"uid-{FIRST}"}})]
        api.fail("DELETE", ApiUnreachableError("away"))
        finish(api, SECOND)

    assert (await api.get(TASKS))["items"] == []
    assert [line.phase for line in output.written] == [TaskPhase.SUCCEEDED] * 2


async def test_a_task_whose_whole_answer_cannot_be_read_is_not_deleted() -> None:
    api, output, one = FakeApiServer(), Lines(), batch("a")

    async with under_way(submission(api, one, output, deletes=True)):
        api.fail("GET", ApiError(403, "Forbidden", "no right"))
        finish(api, one.tasks[0].name, result=CUT_OFF)

    assert [line.truncated for line in output.written] == [True]
    assert api.calls_of("DELETE") == []


async def test_tasks_are_kept_otherwise() -> None:
    api = FakeApiServer()

    async with under_way(submission(api, TWO, Lines())):
        finish(api, FIRST)
        finish(api, SECOND)

    assert api.calls_of("DELETE") == []


async def interrupt(api: FakeApiServer, *, cancels: bool) -> list[str]:
    """Interrupt a submission when one of its two tasks has finished; return what is reported."""
    reports: list[str] = []
    running = asyncio.ensure_future(carry_out(submission(api, TWO, Lines()), cancels=cancels, report=reports.append))
    await asyncio.sleep(1)
    finish(api, FIRST)
    await asyncio.sleep(1)
    running.cancel()
    assert not await running
    return reports


async def test_an_interrupted_submission_leaves_its_tasks_and_says_how_to_go_on() -> None:
    api = FakeApiServer()

    reports = await interrupt(api, cancels=False)

    assert api.calls_of("DELETE") == []
    assert reports == [
        "interrupted: 1 answered, 0 failed, 0 rejected, 0 late, 0 tokens, energy unknown",
        "1 unfinished tasks of batch b continue. Repeat the same command to collect their answers, or delete all tasks "
        "of the batch: kubectl delete llmtasks --namespace team --selector perllm.io/batch=b",
    ]


async def test_an_interrupted_submission_deletes_what_has_not_finished_if_asked() -> None:
    api = FakeApiServer()

    reports = await interrupt(api, cancels=True)

    assert [at for at, _ in api.calls_of("DELETE")] == [path(SECOND)]
    assert reports[1] == "1 unfinished tasks deleted"
