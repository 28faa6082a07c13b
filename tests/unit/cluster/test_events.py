import asyncio
import logging

import pytest

from perllm.cluster.client import ApiError, ApiUnreachableError
from perllm.cluster.events import CAPACITY, MAX_NOTE, EventRecorder, Subject
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

pytestmark = pytest.mark.looptime

EVENTS = "/apis/events.k8s.io/v1/namespaces/lab/events"
TASK = Subject("lab", "t", "uid-t")


class Recorder(EventRecorder):
    """A recorder with a queue of its own."""

    def __init__(self, api: FakeApiServer) -> None:
        self.writes = make_writes()
        super().__init__(api, self.writes, instance="host", unix_now=lambda: 1_800_000_000.0)  # type: ignore[arg-type]


async def post_all(events: Recorder) -> None:
    running = asyncio.create_task(events.writes.run())
    await asyncio.sleep(60)
    running.cancel()


async def test_an_event_is_about_the_task() -> None:
    api = FakeApiServer()
    events = Recorder(api)
    events.record(TASK, "Placed", "on n")
    events.record(TASK, "DeadlineMissed", "x" * 5000, warning=True)
    await post_all(events)
    (path, placed), (_, missed) = api.calls_of("POST")
    assert path == EVENTS
    assert (placed["reason"], placed["note"], placed["type"]) == ("Placed", "on n", "Normal")
    assert (placed["regarding"]["kind"], placed["regarding"]["uid"]) == ("LLMInferenceTask", "uid-t")
    assert placed["eventTime"] == "2027-01-15T08:00:00.000000Z"
    assert (len(missed["note"].encode()), missed["type"]) == (MAX_NOTE, "Warning")
    assert placed["metadata"]["name"] != missed["metadata"]["name"]


@pytest.mark.parametrize("text", ["ж" * 600, "例" * 2000, "x" * (MAX_NOTE + 1), "a" + "é" * MAX_NOTE])
async def test_the_note_of_an_event_has_no_more_bytes_than_the_api_server_accepts(text: str) -> None:
    api = FakeApiServer()
    events = Recorder(api)
    events.record(TASK, "Failed", text)
    await post_all(events)
    note = api.calls_of("POST")[0][1]["note"]
    assert MAX_NOTE - 4 < len(note.encode()) <= MAX_NOTE
    assert text.startswith(note.removesuffix("…"))


async def test_the_name_of_an_event_is_valid_for_any_task_name() -> None:
    api = FakeApiServer()
    events = Recorder(api)
    events.record(Subject("lab", "a" * 199 + "-" + "b" * 53, "uid"), "Placed", "")
    await post_all(events)
    name = api.calls_of("POST")[0][1]["metadata"]["name"]
    assert len(name) <= 253
    assert "-." not in name


async def test_a_refused_event_does_not_stop_the_others() -> None:
    api = FakeApiServer()
    api.failures = [ApiError(403, "Forbidden", "namespace is being terminated")] * 5
    events = Recorder(api)
    for _ in range(9):
        events.record(TASK, "Placed", "")
    await post_all(events)
    assert len(api.calls_of("POST")) == 9


async def test_events_that_the_api_server_cannot_follow_are_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApiServer()
    events = Recorder(api)
    with caplog.at_level(logging.WARNING):
        for number in range(CAPACITY + 50):
            events.record(TASK, f"R{number}", "")
    assert "dropping events" in caplog.text
    assert len(caplog.records) == 1
    await post_all(events)
    assert len(api.calls_of("POST")) == CAPACITY


async def test_events_wait_for_a_server_that_is_down() -> None:
    api = FakeApiServer()
    api.failures = [ApiUnreachableError("refused")] * 3
    events = Recorder(api)
    events.record(TASK, "Placed", "")
    await post_all(events)
    assert [path for path, _ in api.calls_of("POST")] == [EVENTS] * 4
