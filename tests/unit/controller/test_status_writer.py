import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.client import ApiError, ApiUnreachableError
from perllm.controller.status_writer import RESTORE_PAUSE_S, StatusWriter, Stored, read_stored
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

KEY = "lab/t"
UID = "uid-t"
PATH = names.task_path("lab", "t")


class Setting:
    def __init__(self) -> None:
        self.api = FakeApiServer()
        self.api.store(PATH)
        self.written: list[tuple[str, Any]] = []
        self.writes = make_writes()
        self.writer = StatusWriter(
            self.api,  # type: ignore[arg-type]
            self.writes,
            on_written=lambda key, fields: self.written.append((key, fields)),
        )

    @property
    def patches(self) -> list[Any]:
        return [body[-1]["value"] for _, body in self.api.calls_of("PATCH")]

    @property
    def stored(self) -> Any:
        item = self.api.read(PATH)
        return item and item.get("status")


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    running = asyncio.create_task(setting.writes.run())
    yield setting
    running.cancel()


@pytest.mark.looptime
class TestStatusWriter:
    async def test_writes_the_newest_status_only(self, setting: Setting) -> None:
        for number in range(9):
            setting.writer.put(KEY, UID, {"number": number})
        await setting.writes.drain()
        assert setting.patches == [{"number": 8}]
        assert setting.written == [(KEY, {"number": 8})]
        assert len(setting.writes) == 0

    async def test_writes_what_came_in_while_it_was_writing(self, setting: Setting) -> None:
        setting.writer.put(KEY, UID, {"number": 1})
        await setting.api.asked.wait()
        setting.writer.put(KEY, UID, {"number": 2})
        await setting.writes.drain()
        assert setting.patches == [{"number": 1}, {"number": 2}]

    async def test_writes_as_soon_as_the_least_patient_status_asks(self, setting: Setting) -> None:
        setting.writer.put(KEY, UID, {"number": 1}, delay_s=3.0)
        setting.writer.put(KEY, UID, {"number": 2}, delay_s=1.0)
        setting.writer.put(KEY, UID, {"number": 3}, delay_s=3.0)
        await asyncio.sleep(1.1)
        assert setting.patches == [{"number": 3}]

    async def test_writes_nothing_where_nothing_changed(self, setting: Setting) -> None:
        setting.writer.seed(KEY, Stored({"number": 1}))
        setting.writer.put(KEY, UID, {"number": 1})
        await setting.writes.drain()
        setting.writer.put(KEY, UID, {"number": 1, "more": 2})
        await setting.writes.drain()
        assert setting.patches == [{"number": 1, "more": 2}]

    @pytest.mark.parametrize(
        "error", [ApiUnreachableError("gone"), ApiError(500, "", ""), ApiError(429, "", ""), ApiError(409, "", "")]
    )
    async def test_retries_until_the_newest_is_stored(self, setting: Setting, error: ApiError) -> None:
        setting.api.failures = [error] * 6
        setting.writer.put(KEY, UID, {"number": 1})
        await asyncio.sleep(3)
        assert setting.written == []
        setting.writer.put(KEY, UID, {"number": 2})
        await setting.writes.drain()
        assert setting.stored == {"number": 2}
        assert setting.written == [(KEY, {"number": 2})]

    async def test_does_not_let_one_object_hold_up_the_others(self, setting: Setting) -> None:
        setting.api.failures = [ApiError(403, "Forbidden", "no")]
        setting.writer.put(KEY, UID, {"number": 1})
        setting.api.store(names.task_path("lab", "other"))
        await asyncio.sleep(0.01)
        setting.writer.put("lab/other", "uid-other", {"number": 2})
        await asyncio.sleep(0.01)
        assert setting.written == [("lab/other", {"number": 2})]

    async def test_a_status_that_the_schema_does_not_admit_is_written_without_its_details(
        self, setting: Setting
    ) -> None:
        setting.api.failures = [ApiError(422, "Invalid", "status.number: too large")]
        setting.writer.put(KEY, UID, {"phase": "Running", "number": 1})
        await setting.writes.drain()
        assert setting.stored["phase"] == "Running"
        assert "status.number: too large" in setting.stored["message"]
        assert setting.written == []
        setting.writer.put(KEY, UID, {"phase": "Running", "number": 2})
        await setting.writes.drain()
        assert setting.stored == {"phase": "Running", "number": 2}

    async def test_a_status_that_is_always_denied_is_logged_once(
        self, setting: Setting, caplog: pytest.LogCaptureFixture
    ) -> None:
        setting.api.failures = [ApiError(422, "Invalid", "spec.template: not a map")] * 1000
        setting.writer.put(KEY, UID, {"phase": "Running"})
        await asyncio.sleep(3600)
        assert setting.patches
        assert len(caplog.records) == 1

    async def test_replaces_no_report_though_the_answer_to_the_order_was_lost(self, setting: Setting) -> None:
        order = {"phase": "Running", "runsAs": "request", "attempts": 1}
        setting.api.failures = [ApiUnreachableError("reset")]
        setting.writer.put(KEY, UID, order)
        await setting.api.asked.wait()
        setting.api.store(PATH, status={**order, "run": {"attempt": 1}})
        setting.writer.put(KEY, UID, {**order, "deadlineMet": False})
        await setting.writes.drain()
        assert setting.stored == {**order, "run": {"attempt": 1}}

    async def test_repeats_an_order_that_was_not_stored(self, setting: Setting) -> None:
        order = {"phase": "Running", "runsAs": "request", "attempts": 1}
        setting.api.failures = [ApiUnreachableError("reset")]
        setting.writer.put(KEY, UID, order)
        await setting.writes.drain()
        assert setting.stored == order

    async def test_forgets_an_object_that_no_longer_exists(self, setting: Setting) -> None:
        setting.api.remove(PATH)
        setting.writer.put(KEY, UID, {"number": 1})
        await setting.writes.drain()
        assert setting.written == []

    async def test_takes_an_answer_about_a_former_object_for_no_answer_about_its_namesake(
        self, setting: Setting
    ) -> None:
        setting.api.remove(PATH)
        setting.writer.put(KEY, UID, {"phase": "Running", "number": 1})
        await setting.api.asked.wait()
        setting.writer.forget(KEY)
        setting.writer.seed(KEY, Stored({}))
        await setting.writes.drain()
        setting.api.store(PATH)
        setting.writer.put(KEY, UID, {"phase": "Running"})
        await setting.writes.drain()
        assert setting.stored == {"phase": "Running"}

    async def test_leaves_another_task_of_the_name_alone(self, setting: Setting) -> None:
        setting.api.store(PATH, metadata={"uid": "another"}, status={"phase": "Running"})
        setting.writer.put(KEY, UID, {"phase": "Failed"})
        await setting.writes.drain()
        assert (setting.stored, setting.written) == ({"phase": "Running"}, [])

    async def test_an_unfinished_status_waits_for_the_next_one(self, setting: Setting) -> None:
        for number in range(3):
            setting.writer.put(KEY, UID, {"number": number}, delay_s=1.0)
            assert not setting.writer.is_stored(KEY)
        await asyncio.sleep(0.9)
        assert setting.patches == []
        await asyncio.sleep(0.2)
        assert setting.patches == [{"number": 2}]
        assert setting.writer.is_stored(KEY)

    async def test_a_status_that_may_not_wait_takes_the_place_of_one_that_does(self, setting: Setting) -> None:
        setting.writer.put(KEY, UID, {"number": 1}, delay_s=1.0)
        setting.writer.put(KEY, UID, {"number": 2})
        await asyncio.sleep(2)
        assert setting.patches == [{"number": 2}]

    async def test_nothing_waits_when_the_process_ends(self, setting: Setting) -> None:
        setting.writer.put(KEY, UID, {"number": 1}, delay_s=60.0)
        setting.writer.hurry()
        await setting.writes.drain()
        assert setting.patches == [{"number": 1}]

    async def test_keeps_nothing_of_a_task_that_is_gone_before_its_order_fails(self, setting: Setting) -> None:
        setting.api.slow_s = 1.0
        setting.api.fail("PATCH", ApiUnreachableError("no answer"))
        setting.writer.put(KEY, UID, {"phase": "Running", "runsAs": "request", "attempts": 1})
        await asyncio.sleep(0.5)
        setting.writer.forget(KEY)
        await asyncio.sleep(60)
        setting.writer.put(KEY, "uid-namesake", {"phase": "Pending"})
        await setting.writes.drain()
        assert [method for method, *_ in setting.api.calls] == ["PATCH", "PATCH"]


NEWEST = {"phase": "Running", "nodeName": "n"}


@pytest.mark.looptime
class TestRestoration:
    """Of statuses that other clients change."""

    async def write(self, setting: Setting) -> None:
        setting.writer.put(KEY, UID, NEWEST)
        await setting.writes.drain()
        setting.api.calls.clear()

    def change(self, setting: Setting, **fields: Any) -> Stored:
        """Change some fields of the status, as another client does, and return what the watch shows."""
        return read_stored(setting.api.store(PATH, status=fields))

    async def restore(self, setting: Setting, present: Stored) -> None:
        setting.writer.restore(KEY, UID, NEWEST, present)
        await setting.writes.drain()

    @pytest.mark.parametrize(
        "change",
        [{"nodeName": None}, {"phase": "Pending"}, {"message": "new"}, {"phase": None, "nodeName": None}],
        ids=["a field removed", "a field changed", "a field added", "all removed"],
    )
    async def test_of_any_difference(self, setting: Setting, change: dict[str, Any]) -> None:
        await self.write(setting)
        await self.restore(setting, self.change(setting, **change))
        assert setting.stored == NEWEST

    async def test_writes_nothing_for_a_status_as_it_was_written(self, setting: Setting) -> None:
        await self.write(setting)
        await self.restore(setting, self.change(setting))
        assert setting.patches == []

    async def test_writes_nothing_for_what_was_there_before_the_last_write(self, setting: Setting) -> None:
        before = self.change(setting, phase="Pending")
        await self.write(setting)
        await self.restore(setting, before)
        assert setting.patches == []

    async def test_writes_nothing_for_a_status_whose_write_is_not_confirmed_yet(self, setting: Setting) -> None:
        setting.api.slow_s = 1.0
        setting.writer.put(KEY, UID, NEWEST)
        await asyncio.sleep(0.5)
        setting.writer.restore(KEY, UID, NEWEST, Stored(NEWEST, 7))
        await setting.writes.drain()
        assert setting.patches == [NEWEST]

    async def test_takes_what_the_api_server_made_of_a_status_for_that_status(self, setting: Setting) -> None:
        """Where the CRD is older than the operator, the API server drops fields that it does not know."""
        setting.api.drops = {"nodeName"}
        await self.write(setting)
        present = self.change(setting)
        assert present.fields == {"phase": "Running"}
        await self.restore(setting, present)
        assert setting.patches == []

    async def test_does_not_fight_a_client_that_insists(self, setting: Setting) -> None:
        await self.write(setting)
        for _ in range(600):
            setting.writer.restore(KEY, UID, NEWEST, self.change(setting, nodeName=None))
            await asyncio.sleep(0.1)
        assert len(setting.patches) <= 2 * 60 / RESTORE_PAUSE_S + 1
        await asyncio.sleep(RESTORE_PAUSE_S)
        assert setting.stored == NEWEST
