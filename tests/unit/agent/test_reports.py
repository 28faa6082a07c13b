"""A run is reported once, for its own attempt only, and for as long as the API server does not answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from perllm.agent.reports import RunReports
from perllm.agent.results import build_result, describe_run
from perllm.api import names
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError, Client
from perllm.cluster.writes import WriteQueue
from perllm.completions.answer import Answer
from unit.agent.tasks import CREATED_S, PATH, assignment, task
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

pytestmark = pytest.mark.looptime

RUN = describe_run(1, Answer(), None, begun_unix_s=CREATED_S, length_s=1.0)
RESULT = build_result("Blue.")


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
    return RunReports(cast(Client, api), writes)


def status_of(api: FakeApiServer) -> dict[str, Any]:
    item = api.read(PATH)
    assert item is not None
    status: dict[str, Any] = item["status"]
    return status


async def test_run_and_answer_are_added_to_the_status_and_nothing_else(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    before = status_of(api)
    reports.put(assignment(), RUN, RESULT)
    await writes.drain()

    assert status_of(api) == {**before, "run": RUN.to_object(), "result": {"text": "Blue."}}
    assert [path for path, _ in api.calls_of("PATCH")] == [names.task_status_path("team", "t")]


async def test_an_api_server_that_was_down_gets_the_report_once(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 5)
    reports.put(assignment(), RUN, RESULT)
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
    reports.put(assignment(), RUN, RESULT)
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
    reports.put(assignment(), RUN, RESULT)
    await asyncio.sleep(600)

    assert len(api.calls_of("PATCH")) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_a_report_that_will_never_be_accepted_is_given_up(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    api.fail("PATCH", ApiError(status, "Invalid", "status.result.text: Invalid value: 'Blue.'"))
    reports.put(assignment(), RUN, RESULT)
    await asyncio.sleep(600)

    assert (len(api.calls_of("PATCH")), len(writes)) == (1, 0)
    assert "Blue." not in caplog.text


async def test_a_report_of_a_task_that_is_gone_is_dropped(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 1000)
    reports.put(assignment(), RUN, RESULT)
    await asyncio.sleep(60)
    reports.drop(assignment())

    assert len(writes) == 0


async def test_a_report_that_was_dropped_while_it_was_written_is_not_repeated(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.slow_s = 1.0
    api.fail("PATCH", ApiTimeoutError("no answer in time"))
    reports.put(assignment(), RUN, RESULT)
    await asyncio.sleep(0.5)
    reports.drop(assignment())
    await asyncio.sleep(600)

    assert (len(api.calls_of("PATCH")), len(writes)) == (1, 0)


async def test_the_end_of_an_earlier_attempt_does_not_drop_the_report_of_a_later_one(
    api: FakeApiServer, reports: RunReports, writes: WriteQueue
) -> None:
    api.store(PATH, status={"attempts": 2})
    reports.put(assignment(attempt=2), RUN, RESULT)
    reports.drop(assignment())
    await writes.drain()

    assert "run" in status_of(api)
