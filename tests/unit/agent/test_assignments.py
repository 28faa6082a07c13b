import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import pytest

from perllm.agent.assignments import Assignment, WatchedAssignments, read_assignment
from perllm.cluster.client import Client
from perllm.cluster.outages import Outages
from perllm.completions.endpoint import ChatRequest
from unit.agent.tasks import CREATED_S, PATH, assignment, task
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_guard


def test_a_placed_task_is_a_request_with_its_conversation_and_parameters() -> None:
    read = assignment(system="Be brief.", temperature=0, seed=7, topP=0.5, stop=["."])

    assert read.to_requests() == [
        ChatRequest(
            "m",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            {"max_tokens": 50, "temperature": 0.0, "top_p": 0.5, "seed": 7, "stop": ["."]},
        )
    ]


def test_each_of_several_prompts_is_a_request_with_the_same_parameters() -> None:
    read = assignment(prompt=None, prompts=["one", "two"], system="Be brief.")

    assert [[message["content"] for message in request.messages] for request in read.to_requests()] == [
        ["Be brief.", "one"],
        ["Be brief.", "two"],
    ]
    assert [request.parameters for request in read.to_requests()] == [{"max_tokens": 50}] * 2


def test_its_deadline_counts_from_when_it_was_received_which_is_more_precise_than_its_creation() -> None:
    assert assignment().due_unix_s == CREATED_S + 60
    assert assignment(receivedTime="2026-01-01T00:00:00.5Z").due_unix_s == CREATED_S + 60.5


def test_it_ends_at_the_deadline_if_it_says_so() -> None:
    assert not assignment().ends_at_deadline
    assert assignment(onDeadlineMissed="Terminate").ends_at_deadline


NOTHING_TO_DO: dict[str, dict[str, Any]] = {
    "it runs as a pod": {"runsAs": "pod"},
    "it has succeeded": {"phase": "Succeeded"},
    "it has failed": {"phase": "Failed"},
    "its attempt has a run": {"run": {"attempt": 1}},
    "there was no attempt": {"attempt": 0},
}


@pytest.mark.parametrize("changes", NOTHING_TO_DO.values(), ids=NOTHING_TO_DO.keys())
def test_there_is_nothing_to_do_if(changes: dict[str, Any]) -> None:
    assert read_assignment(task(**changes)) is None


def test_a_task_that_is_being_deleted_is_not_carried_out() -> None:
    item = task()
    item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    assert read_assignment(item) is None


def test_a_run_of_an_earlier_attempt_does_not_count() -> None:
    assert assignment(attempt=2, run={"attempt": 1}).attempt == 2


class Desk:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int]] = []
        self.noted = asyncio.Event()
        self.ends_at_deadline = False

    def assign(self, assignment: Assignment) -> None:
        self._note("assign", assignment)

    def change(self, assignment: Assignment) -> None:
        self.ends_at_deadline = assignment.ends_at_deadline
        self._note("change", assignment)

    def withdraw(self, assignment: Assignment) -> None:
        self._note("withdraw", assignment)

    def _note(self, what: str, assignment: Assignment) -> None:
        self.notes.append((what, assignment.attempt))
        self.noted.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self.noted.wait(), 2)
        self.noted.clear()


@pytest.fixture
def api() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
async def desk(api: FakeApiServer) -> AsyncIterator[Desk]:
    desk = Desk()
    api.store(PATH, **task())
    watch = WatchedAssignments(
        cast(Client, api),
        "n",
        "team",
        desk,
        guard=make_guard(),
        outages=Outages(asyncio.get_running_loop().time),
        rng=Random(0),
    )
    running = asyncio.create_task(watch.run())
    await desk.wait()
    yield desk
    running.cancel()


async def test_only_tasks_of_the_node_are_watched(api: FakeApiServer, desk: Desk) -> None:
    assert api.calls_of("GET")[0][1]["fieldSelector"] == "status.nodeName=n"


@pytest.mark.looptime
async def test_another_attempt_takes_the_place_of_the_one_before(api: FakeApiServer, desk: Desk) -> None:
    api.store(PATH, status={"attempts": 2})
    await desk.wait()
    assert desk.notes == [("assign", 1), ("withdraw", 1), ("assign", 2)]


@pytest.mark.looptime
async def test_a_deleted_task_and_one_with_a_run_are_withdrawn(api: FakeApiServer, desk: Desk) -> None:
    api.store(PATH, status={"run": {"attempt": 1}})
    await desk.wait()
    api.store(PATH, status={"attempts": 2})
    await desk.wait()
    api.remove(PATH)
    await desk.wait()
    assert desk.notes == [("assign", 1), ("withdraw", 1), ("assign", 2), ("withdraw", 2)]


@pytest.mark.looptime
async def test_whether_an_attempt_ends_at_the_deadline_may_change_while_it_is_made(
    api: FakeApiServer, desk: Desk
) -> None:
    api.store(PATH, spec={"onDeadlineMissed": "Terminate"})
    await desk.wait()
    assert (desk.notes, desk.ends_at_deadline) == ([("assign", 1), ("change", 1)], True)


@pytest.mark.looptime
async def test_a_change_that_is_about_something_else_changes_nothing(api: FakeApiServer, desk: Desk) -> None:
    api.store(PATH, status={"message": "words"})
    await asyncio.sleep(1)
    assert desk.notes == [("assign", 1)]
