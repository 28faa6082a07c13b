"""A run is reported once, for its own attempt only, and for as long as the API server does not answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from perllm.agent.inquiry import Inquiry, Reply
from perllm.agent.reports import RunReports
from perllm.agent.results import AttemptReport, build_report
from perllm.api import names
from perllm.api.task_status import MAX_ANSWER_LENGTH
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError, Client
from perllm.cluster.writes import WriteQueue
from perllm.completions.answer import Answer
from unit.agent.tasks import CREATED_S, PATH, assignment, task
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

pytestmark = pytest.mark.looptime

NAME = "uid-t-1.n"
ANSWER_PATH = names.task_answer_path("team", NAME)


def build(*texts: str) -> AttemptReport:
    inquiry = Inquiry([Reply(Answer(pieces=[text]), None) for text in texts], has_list=len(texts) > 1)
    return build_report(1, inquiry, NAME, begun_unix_s=CREATED_S, length_s=1.0)


REPORT = build("Blue.")
SEVERAL = build("Blue.", "Red.")
LONG = build("x" * (MAX_ANSWER_LENGTH + 1))


@pytest.fixture
def api() -> FakeApiServer:
    api = FakeApiServer()
    api.store(PATH, **task())
    return api


@pytest.fixture
async def writes() -> AsyncIterator[WriteQueue]:
    writes = make_writes()
    running = asyncio.create_task(writes.run())
    yield writes
    running.cancel()


@pytest.fixture
def reports(api: FakeApiServer, writes: WriteQueue) -> RunReports:
    return RunReports(cast(Client, api), writes, now=lambda: asyncio.get_running_loop().time())


def status_of(api: FakeApiServer) -> dict[str, Any]:
    item = api.read(PATH)
    assert item is not None
    status: dict[str, Any] = item["status"]
    return status


async def test_run_and_answer_are_added_to_the_status_and_nothing_else(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    before = status_of(api)
    reports.put(assignment(), REPORT)
    await writes.drain()

    assert status_of(api) == {**before, "run": REPORT.run.to_object(), "result": {"text": "Blue."}}
    assert [path for path, _ in api.calls_of("PATCH")] == [names.task_status_path("team", "t")]


async def test_an_api_server_that_was_down_gets_the_report_once(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 5)
    reports.put(assignment(), REPORT)
    await asyncio.sleep(60)
    await writes.drain()

    assert len(api.calls_of("PATCH")) == 6
    assert status_of(api)["run"]["attempt"] == 1


@pytest.mark.parametrize(
    "changes", [{"metadata": {"uid": "of another task"}}, {"status": {"attempts": 2}}], ids=["uid", "attempt"]
)
async def test_the_run_of_another_task_or_attempt_is_denied_and_not_repeated(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue, changes: dict[str, Any]
) -> None:
    api.store(PATH, **changes)
    reports.put(assignment(), REPORT)
    await asyncio.sleep(600)

    assert len(api.calls_of("PATCH")) == 1
    assert "run" not in status_of(api)


DENIED = (
    "ValidatingAdmissionPolicy 'perllm-agent-reports' with binding 'perllm-agent-reports' denied request: ended already"
)


async def test_a_report_that_the_policy_of_agents_denies_is_given_up(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("PATCH", ApiError(403, "Forbidden", DENIED))
    reports.put(assignment(), REPORT)
    await asyncio.sleep(600)

    assert len(api.calls_of("PATCH")) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_a_report_that_will_never_be_accepted_is_given_up(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    api.fail("PATCH", ApiError(status, "Invalid", "status.result.text: Invalid value: 'Blue.'"))
    reports.put(assignment(), REPORT)
    await asyncio.sleep(600)

    assert (len(api.calls_of("PATCH")), len(writes)) == (1, 0)
    assert "Blue." not in caplog.text


async def test_how_long_a_report_has_waited_is_known_until_it_is_accepted(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    assert reports.wait_s == 0
    api.fail("PATCH", *[ApiError(403, "Forbidden", "no rights yet")] * 1000)
    reports.put(assignment(), REPORT)
    await asyncio.sleep(600)
    assert reports.wait_s == 600

    api.recover("PATCH")
    await writes.drain()
    assert reports.wait_s == 0


async def test_a_report_of_a_task_that_is_gone_is_dropped(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 1000)
    reports.put(assignment(), REPORT)
    await asyncio.sleep(60)
    reports.drop(assignment())

    assert len(writes) == 0


async def test_a_report_that_was_dropped_while_it_was_written_is_not_repeated(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.slow_s = 1.0
    api.fail("PATCH", ApiTimeoutError("no answer in time"))
    reports.put(assignment(), REPORT)
    await asyncio.sleep(0.5)
    reports.drop(assignment())
    await asyncio.sleep(600)

    assert (len(api.calls_of("PATCH")), len(writes)) == (1, 0)


async def test_the_end_of_an_earlier_attempt_does_not_drop_the_report_of_a_later_one(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.store(PATH, status={"attempts": 2})
    reports.put(assignment(attempt=2), REPORT)
    reports.drop(assignment())
    await writes.drain()

    assert "run" in status_of(api)


async def test_several_answers_are_an_object_that_the_task_owns_and_its_status_names(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    reports.put(assignment(), SEVERAL)
    await writes.drain()

    stored = api.read(ANSWER_PATH)
    assert stored is not None
    owner = {"apiVersion": "perllm.io/v1alpha1", "kind": "LLMInferenceTask", "name": "t", "uid": "uid-t"}
    assert stored["metadata"]["ownerReferences"] == [owner]
    assert (stored["kind"], stored["attempt"]) == ("LLMTaskAnswer", 1)
    assert [one["text"] for one in stored["answers"]] == ["Blue.", "Red."]
    assert status_of(api)["result"] == {"answerName": NAME}


async def test_a_long_answer_is_whole_in_an_object_and_begins_in_the_status(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    reports.put(assignment(), LONG)
    await writes.drain()

    result = status_of(api)["result"]
    assert (len(result["text"]), result["truncated"], result["answerName"]) == (MAX_ANSWER_LENGTH, True, NAME)
    assert len((api.read(ANSWER_PATH) or {})["answers"][0]["text"]) == MAX_ANSWER_LENGTH + 1


async def test_an_answer_that_was_stored_before_a_restart_counts(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.store(ANSWER_PATH, attempt=1, answers=[{"index": 0, "text": "first"}])
    reports.put(assignment(), SEVERAL)
    await writes.drain()

    assert (api.read(ANSWER_PATH) or {})["answers"] == [{"index": 0, "text": "first"}]
    assert status_of(api)["result"] == {"answerName": NAME}


async def test_an_api_server_that_was_down_gets_the_answer_before_the_report(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("POST", *[ApiUnreachableError("connection refused")] * 5)
    reports.put(assignment(), SEVERAL)
    await asyncio.sleep(60)
    await writes.drain()

    assert [method for method, _, _ in api.calls] == ["POST"] * 6 + ["PATCH"]


CONFLICT = ApiError(409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q": it has been modified')


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_conflict_with_another_write_costs_no_answers(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue, method: str
) -> None:
    api.fail(method, CONFLICT, CONFLICT)
    reports.put(assignment(), SEVERAL)
    await writes.drain()

    assert (status_of(api)["run"]["end"], status_of(api)["result"]) == ("Answered", {"answerName": NAME})
    assert [one["text"] for one in (api.read(ANSWER_PATH) or {})["answers"]] == ["Blue.", "Red."]


REFUSALS = [ApiError(422, "Invalid", "too long"), ApiError(403, "Forbidden", "exceeded quota: answers")]


@pytest.mark.parametrize("error", REFUSALS)
async def test_answers_that_cannot_be_stored_are_a_failure(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue, error: ApiError
) -> None:
    api.fail("POST", error)
    reports.put(assignment(), SEVERAL)
    await writes.drain()

    status = status_of(api)
    problem = f"the answers could not be stored: {error.status} {error.reason}"
    assert (status["run"]["end"], status["run"]["problem"]) == ("Failed", problem)
    assert "result" not in status


async def test_of_a_long_answer_that_cannot_be_stored_the_beginning_remains(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("POST", REFUSALS[0])
    reports.put(assignment(), LONG)
    await writes.drain()

    status = status_of(api)
    assert (status["run"]["end"], status["result"]["truncated"]) == ("Answered", True)
    assert "answerName" not in status["result"]
